package annals;

import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.header.ConnectHeaders;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * For a sink that writes a table a topic: gives a record the name of its event type for a topic, so that there is a table a type,
 * and leaves it the headers that are its key, of which the sink makes columns. Leave out tombstones before it.
 */
public class TableOfType<R extends ConnectRecord<R>> implements Transformation<R> {
  private static final List<String> KEY = List.of("ce_subject", "ce_streamversion");

  @Override
  public R apply(R record) {
    String fullName = record.valueSchema().name();
    String type = fullName.substring(fullName.lastIndexOf('.') + 1);
    var key = new ConnectHeaders();
    for (String name : KEY) {
      key.add(record.headers().lastWithName(name));
    }
    return record.newRecord(type, record.kafkaPartition(), record.keySchema(), record.key(), record.valueSchema(),
        record.value(), record.timestamp(), key);
  }

  @Override
  public ConfigDef config() {
    return new ConfigDef();
  }

  @Override
  public void configure(Map<String, ?> settings) {}

  @Override
  public void close() {}
}
