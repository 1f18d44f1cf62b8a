package annals;

import annals.events.Envelope;
import annals.events.EventDecoder;
import annals.events.VersionFilter;
import annals.events.VersionFilter.Last;
import bank.bank_account.MoneyPaidIn;
import bank.bank_account.MoneyWithdrawn;
import bank.bank_account.TransferReceived;
import bank.bank_account.TransferSent;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Balances of bank accounts in memory, built from the beginning of the topic at each start: Kafka's own client.
 *
 * <pre>Balances TOPIC [--until-end]</pre>
 *
 * For a read model that lasts, keep the offsets and each stream's {@link Last} in its database, and write them in the transaction
 * that applies the events.
 */
public class Balances {
  private final EventDecoder decoder = new EventDecoder(System.getenv("ANNALS_REGISTRY_URL"));
  private final Map<String, Last> last = new HashMap<>();
  private final Map<String, Long> cents = new TreeMap<>();

  public static void main(String[] arguments) throws Exception {
    new Balances().run(arguments);
  }

  void run(String[] arguments) throws Exception {
    read(arguments[0], Arrays.asList(arguments).contains("--until-end"));
    System.out.println(new ObjectMapper().writeValueAsString(Map.of("balances", cents)));
  }

  private void read(String topic, boolean untilEnd) {
    Map<String, Object> settings = Map.of(
        ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("ANNALS_KAFKA"),
        // The default is read_uncommitted: records of aborted transactions would be read, and the events again.
        ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
        ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    // The value as bytes: a deserializer that throws inside poll() stops at the same record for ever.
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
      List<TopicPartition> partitions =
          consumer.partitionsFor(topic).stream().map(it -> new TopicPartition(topic, it.partition())).toList();
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      // Under read_committed, the end is where the first open transaction begins.
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
      // The position, not the offset of a record: transactions leave markers, which are never delivered.
      while (!untilEnd || partitions.stream().anyMatch(it -> consumer.position(it) < ends.get(it))) {
        long applied = 0;
        for (var record : consumer.poll(Duration.ofSeconds(1))) {
          applied += take(record) ? 1 : 0;
        }
        if (applied > 0) {
          System.out.println("applied " + applied);
        }
      }
    }
  }

  /** Applies a record, if it is an event that was not applied before. */
  boolean take(ConsumerRecord<String, byte[]> record) {
    return Envelope.of(record.headers(), record.value())
        .map(event -> apply(record.key(), event, record.value()))
        .orElse(false);
  }

  boolean apply(String stream, Envelope event, byte[] value) {
    if (!VersionFilter.isNew(stream, last.getOrDefault(stream, Last.NONE), event)) {
      return false;
    }
    cents.merge(stream, change(decoder.deserialize(null, value)), Long::sum);
    last.put(stream, new Last(event.version(), event.id()));
    return true;
  }

  /** By the event's class. With Java 21, a `switch` over patterns. */
  private static long change(Object event) {
    if (event instanceof MoneyPaidIn paid) {
      return paid.getCents();
    } else if (event instanceof MoneyWithdrawn withdrawn) {
      return -withdrawn.getCents();
    } else if (event instanceof TransferSent sent) {
      return -sent.getCents();
    } else if (event instanceof TransferReceived received) {
      return received.getCents();
    }
    return 0;
  }
}
