import java.util.Map;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.server.policy.CreateTopicPolicy;

/** A policy of a provider: topics for ever cost more than it likes. */
public final class ShortRetention implements CreateTopicPolicy {
    @Override
    public void validate(RequestMetadata topic) {
        if ("-1".equals(topic.configs().get("retention.ms")) && !topic.configs().containsValue("compact")) {
            throw new PolicyViolationException("topics are kept for 30 days at most");
        }
    }

    @Override
    public void configure(Map<String, ?> settings) {}

    @Override
    public void close() {}
}
