package annals.events;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Optional;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

/** What the headers of a record say of its event. */
public record Envelope(String id, String type, long version) {

  /** Empty for a record that is no event: a tombstone, a test message, another producer's record. */
  public static Optional<Envelope> of(Headers headers, Object value) {
    if (value == null || headers.lastHeader("ce_streamversion") == null) {
      return Optional.empty();
    }
    long version = Long.parseLong(text(headers, "ce_streamversion"));
    return Optional.of(new Envelope(text(headers, "ce_id"), text(headers, "ce_type"), version));
  }

  private static String text(Headers headers, String name) {
    Header header = headers.lastHeader(name);
    if (header == null) {
      throw new IllegalArgumentException("an event without header " + name);
    }
    return new String(header.value(), UTF_8);
  }
}
