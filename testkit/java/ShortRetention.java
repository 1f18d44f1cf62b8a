import java.util.Map;
import org.apache.kafka.common.errors.PolicyViolationException;
import org.apache.kafka.server.policy.CreateTopicPolicy;

/** A policy of a provider: topics for ever and small segments cost more than it likes. */
public final class ShortRetention implements CreateTopicPolicy {
    private static final long SEGMENT_BYTES_MIN = 104_857_600;

    @Override
    public void validate(RequestMetadata topic) {
        if ("-1".equals(topic.configs().get("retention.ms")) && !topic.configs().containsValue("compact")) {
            throw new PolicyViolationException("topics are kept for 30 days at most");
        }
        String segment = topic.configs().get("segment.bytes");
        if (segment != null && Long.parseLong(segment) < SEGMENT_BYTES_MIN) {
            throw new PolicyViolationException("segments have 100 MiB at least");
        }
    }

    @Override
    public void configure(Map<String, ?> settings) {}

    @Override
    public void close() {}
}
