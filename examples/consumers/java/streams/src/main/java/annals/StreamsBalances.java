package annals;

import annals.events.Envelope;
import annals.events.EventDecoder;
import annals.events.VersionFilter;
import annals.events.VersionFilter.Last;
import bank.bank_account.MoneyPaidIn;
import bank.bank_account.MoneyWithdrawn;
import bank.bank_account.TransferReceived;
import bank.bank_account.TransferSent;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The balance of each account, kept by Kafka Streams in a state store, and published to a topic with each change: exactly once,
 * over kills and rebalances.
 *
 * <pre>StreamsBalances TOPIC BALANCES_TOPIC STATE_DIRECTORY [--until-end]</pre>
 *
 * Topics of Annals are partitioned by the stream as Java's default partitioner does it, so that a store by stream needs no
 * repartitioning, and a join with a topic of your own that has the same keys and as many partitions needs none either.
 */
public final class StreamsBalances {
  private static final String ACCOUNTS = "accounts";

  public static void main(String[] arguments) throws Exception {
    String topic = arguments[0];
    var settings = new Properties();
    // Also the consumer group, and what the topic of the store's changes begins with.
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1] + "-app");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("ANNALS_KAFKA"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[2]);
    // Reads committed records, and writes state, output and offsets in one transaction.
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    // An instance that was killed keeps its partitions so long.
    settings.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 10_000);
    try (var streams = new KafkaStreams(topology(topic, arguments[1]), settings); var admin = Admin.create(settings)) {
      create(admin, arguments[1], partitions(admin, topic).size());
      streams.start();
      await(streams, admin, arguments, Arrays.asList(arguments).contains("--until-end"));
    }
  }

  /** Streams makes its own topics, and not the one that it writes its results into. */
  private static void create(Admin admin, String balances, int partitions) throws Exception {
    try {
      admin.createTopics(List.of(new NewTopic(balances, Optional.of(partitions), Optional.empty()))).all().get();
    } catch (ExecutionException error) {
      if (!(error.getCause() instanceof TopicExistsException)) {
        throw error;
      }
    }
  }

  private static Topology topology(String topic, String balances) {
    // Bytes, not events: Envelope decides first whether there is an event to decode.
    return new Topology()
        .addSource("events", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), topic)
        .addProcessor("balance", Balance::new, "events")
        .addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(ACCOUNTS), Serdes.String(), Serdes.String()),
            "balance")
        .addSink("balances", balances, Serdes.String().serializer(), Serdes.Long().serializer(), "balance");
  }

  /** What the store has of an account: how far its stream is applied, and the balance. */
  private record Account(Last last, long cents) {
    static Account of(String text) {
      if (text == null) {
        return new Account(Last.NONE, 0);
      }
      String[] parts = text.split(" ");
      return new Account(new Last(Long.parseLong(parts[0]), parts[1]), Long.parseLong(parts[2]));
    }

    @Override
    public String toString() {
      return last.version() + " " + last.id() + " " + cents;
    }
  }

  private static final class Balance implements Processor<String, byte[], String, Long> {
    private final EventDecoder decoder = new EventDecoder(System.getenv("ANNALS_REGISTRY_URL"));
    private ProcessorContext<String, Long> context;
    private KeyValueStore<String, String> accounts;

    @Override
    public void init(ProcessorContext<String, Long> context) {
      this.context = context;
      accounts = context.getStateStore(ACCOUNTS);
    }

    @Override
    public void process(Record<String, byte[]> record) {
      Envelope.of(record.headers(), record.value()).ifPresent(event -> apply(record, event));
    }

    private void apply(Record<String, byte[]> record, Envelope event) {
      Account account = Account.of(accounts.get(record.key()));
      if (!VersionFilter.isNew(record.key(), account.last(), event)) {
        return;
      }
      long cents = account.cents() + change(decoder.deserialize(null, record.value()));
      accounts.put(record.key(), new Account(new Last(event.version(), event.id()), cents).toString());
      context.forward(record.withValue(cents));
    }

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

  /** Tells how far the instances have got, and its share; returns, if it is to, where the topic ends. */
  private static void await(KafkaStreams streams, Admin admin, String[] arguments, boolean untilEnd) throws Exception {
    long before = 0;
    int partitions = 0;
    while (true) {
      // A gap or a fork has ended its threads. A process that ends is noticed; one that does nothing is not.
      if (streams.state() == KafkaStreams.State.ERROR) {
        System.exit(1);
      }
      var committed = admin.listConsumerGroupOffsets(arguments[1] + "-app").partitionsToOffsetAndMetadata().get();
      long now = committed.values().stream().mapToLong(it -> it == null ? 0 : it.offset()).sum();
      if (now > before) {
        System.out.println("applied " + (now - before));
      }
      int assigned = streams.metadataForLocalThreads().stream().mapToInt(it -> it.activeTasks().size()).sum();
      if (assigned != partitions) {
        System.out.println("partitions " + assigned);
        partitions = assigned;
      }
      // Before it runs, and while partitions move, nobody can ask the store.
      boolean isRunning = streams.state() == KafkaStreams.State.RUNNING;
      if (untilEnd && isRunning && now >= end(admin, arguments[0])) {
        print(streams);
        return;
      }
      before = now;
      Thread.sleep(50);
    }
  }

  /** The balances of this instance's partitions. */
  private static void print(KafkaStreams streams) {
    ReadOnlyKeyValueStore<String, String> accounts =
        streams.store(StoreQueryParameters.fromNameAndType(ACCOUNTS, QueryableStoreTypes.keyValueStore()));
    var balances = new TreeMap<String, Long>();
    try (var all = accounts.all()) {
      all.forEachRemaining(it -> balances.put(it.key, Account.of(it.value).cents()));
    }
    System.out.println("balances " + balances);
  }

  private static List<TopicPartitionInfo> partitions(Admin admin, String topic) throws Exception {
    return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
  }

  private static long end(Admin admin, String topic) throws Exception {
    var latest = new HashMap<TopicPartition, OffsetSpec>();
    partitions(admin, topic).forEach(it -> latest.put(new TopicPartition(topic, it.partition()), OffsetSpec.latest()));
    var ends = admin.listOffsets(latest, new ListOffsetsOptions(IsolationLevel.READ_COMMITTED)).all().get();
    return ends.values().stream().mapToLong(it -> it.offset()).sum();
  }
}
