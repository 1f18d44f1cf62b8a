package annals;

import annals.events.Envelope;
import annals.events.VersionFilter;
import annals.events.VersionFilter.Last;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.springframework.kafka.listener.adapter.RecordFilterStrategy;
import org.springframework.stereotype.Component;

/** Asked before a handler is chosen: leaves out what is no event, and what was applied. For one consumer thread. */
@Component
public class NewEvents implements RecordFilterStrategy<String, Object> {
  private final Map<String, Last> last = new HashMap<>();
  private long applied;

  /** True leaves the record out. */
  @Override
  public boolean filter(ConsumerRecord<String, Object> record) {
    var event = Envelope.of(record.headers(), record.value());
    if (event.isEmpty()) {
      return true;
    }
    if (!VersionFilter.isNew(record.key(), last.getOrDefault(record.key(), Last.NONE), event.get())) {
      return true;
    }
    last.put(record.key(), new Last(event.get().version(), event.get().id()));
    if (++applied % 500 == 0) {
      System.out.println("applied 500");
    }
    return false;
  }
}
