package annals;

import bank.bank_account.BankAccountOpened;
import bank.bank_account.MoneyPaidIn;
import bank.bank_account.MoneyWithdrawn;
import bank.bank_account.TransferReceived;
import bank.bank_account.TransferSent;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.Consumer;
import org.springframework.boot.ApplicationArguments;
import org.springframework.context.event.EventListener;
import org.springframework.kafka.annotation.KafkaHandler;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.event.ConsumerStoppedEvent;
import org.springframework.kafka.event.ListenerContainerIdleEvent;
import org.springframework.kafka.support.KafkaHeaders;
import org.springframework.messaging.handler.annotation.Header;
import org.springframework.stereotype.Component;

/** A handler for each type of event: Spring chooses it by the class of the payload. */
@Component
@KafkaListener(topics = "${topic}", filter = "newEvents")
public class Accounts {
  private static final String STREAM = KafkaHeaders.RECEIVED_KEY;

  private final ApplicationArguments arguments;
  private final Map<String, Long> cents = new TreeMap<>();

  Accounts(ApplicationArguments arguments) {
    this.arguments = arguments;
  }

  @KafkaHandler
  void on(BankAccountOpened opened, @Header(STREAM) String stream) {
    cents.put(stream, 0L);
  }

  @KafkaHandler
  void on(MoneyPaidIn paid, @Header(STREAM) String stream) {
    cents.merge(stream, paid.getCents(), Long::sum);
  }

  @KafkaHandler
  void on(MoneyWithdrawn withdrawn, @Header(STREAM) String stream) {
    cents.merge(stream, -withdrawn.getCents(), Long::sum);
  }

  @KafkaHandler
  void on(TransferSent sent, @Header(STREAM) String stream) {
    cents.merge(stream, -sent.getCents(), Long::sum);
  }

  @KafkaHandler
  void on(TransferReceived received, @Header(STREAM) String stream) {
    cents.merge(stream, received.getCents(), Long::sum);
  }

  /** A type that this consumer does not know. Without a default, Spring throws. */
  @KafkaHandler(isDefault = true)
  void other(Object event) {}

  /** With --until-end: prints the balances where the topic ends. On the consumer's thread, as it must be. */
  @EventListener
  void idle(ListenerContainerIdleEvent idle) throws JsonProcessingException {
    Consumer<?, ?> consumer = idle.getConsumer();
    var ends = consumer.endOffsets(consumer.assignment());
    // The position, not the offset of a record: transactions leave markers, which are never delivered.
    boolean isEnd = ends.entrySet().stream().allMatch(it -> consumer.position(it.getKey()) >= it.getValue());
    if (arguments.containsOption("until-end") && !ends.isEmpty() && isEnd) {
      System.out.println(new ObjectMapper().writeValueAsString(Map.of("balances", cents)));
      Runtime.getRuntime().halt(0);
    }
  }

  /** A listener that has stopped at an error needs a person: a process that ends is noticed. */
  @EventListener
  void stopped(ConsumerStoppedEvent stopped) {
    if (stopped.getReason() != ConsumerStoppedEvent.Reason.NORMAL) {
      Runtime.getRuntime().halt(1);
    }
  }
}
