package annals.events;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Optional;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

/** What the headers of a record say of its event. previous: the version of the event before it in the topic; -1: none. */
public record Envelope(String id, String type, long version, long previous) {

  /** Empty for a record that is no event: a tombstone, a test message, another producer's record. */
  public static Optional<Envelope> of(Headers headers, Object value) {
    if (value == null || headers.lastHeader("ce_streamversion") == null) {
      return Optional.empty();
    }
    long version = Long.parseLong(text(headers, "ce_streamversion"));
    // Named where it is not the version before: events between are never published.
    boolean isNamed = headers.lastHeader("ce_previousversion") != null;
    long previous = isNamed ? Long.parseLong(text(headers, "ce_previousversion")) : version - 1;
    return Optional.of(new Envelope(text(headers, "ce_id"), text(headers, "ce_type"), version, previous));
  }

  private static String text(Headers headers, String name) {
    Header header = headers.lastHeader(name);
    if (header == null) {
      throw new IllegalArgumentException("an event without header " + name);
    }
    return new String(header.value(), UTF_8);
  }
}
