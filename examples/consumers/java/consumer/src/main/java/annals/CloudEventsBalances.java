package annals;

import annals.events.Envelope;
import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.KafkaMessageFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * The same balances through the official CloudEvents SDK: it reads the headers, and hands out the value as bytes.
 *
 * <pre>CloudEventsBalances TOPIC [--until-end]</pre>
 */
public final class CloudEventsBalances extends Balances {

  public static void main(String[] arguments) throws Exception {
    new CloudEventsBalances().run(arguments);
  }

  @Override
  boolean take(ConsumerRecord<String, byte[]> record) {
    // Asked before it is parsed: the SDK throws on a record that is no CloudEvent.
    if (record.value() == null || record.headers().lastHeader("ce_streamversion") == null) {
      return false;
    }
    CloudEvent event = KafkaMessageFactory.createReader(record).toEvent();
    // Extension attributes come as text.
    long version = Long.parseLong((String) event.getExtension("streamversion"));
    String named = (String) event.getExtension("previousversion");
    long previous = named == null ? version - 1 : Long.parseLong(named);
    var envelope = new Envelope(event.getId(), event.getType(), version, previous);
    return apply(event.getSubject(), envelope, event.getData().toBytes());
  }
}
