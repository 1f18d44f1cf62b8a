package annals;

import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.listener.CommonContainerStoppingErrorHandler;
import org.springframework.kafka.listener.CommonErrorHandler;
import org.springframework.kafka.listener.MessageListenerContainer;

/**
 * Balances of bank accounts in memory, built from the beginning of the topic at each start: Spring for Apache Kafka.
 *
 * <pre>SpringBalances TOPIC [--until-end]</pre>
 */
@SpringBootApplication
public class SpringBalances {
  public static void main(String[] arguments) {
    var application = new SpringApplication(SpringBalances.class);
    application.setDefaultProperties(Map.of("topic", arguments[0]));
    application.run(arguments);
  }

  /** Spring's own handler skips a record after ten tries, which is an event lost here, and a gap for the next one. */
  @Bean
  CommonErrorHandler errorHandler() {
    return new CommonContainerStoppingErrorHandler() {
      @Override
      public void handleRemaining(
          Exception error, List<ConsumerRecord<?, ?>> records, Consumer<?, ?> consumer, MessageListenerContainer container) {
        // Spring says it behind the stop, with which the process ends.
        error.printStackTrace();
        super.handleRemaining(error, records, consumer, container);
      }
    };
  }
}
