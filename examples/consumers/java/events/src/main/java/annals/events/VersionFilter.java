package annals.events;

/**
 * The version filter of docs/topics.md. Keep a stream's last version and the id of its event where the read model is, in the same
 * transaction, and ask before you apply.
 */
public final class VersionFilter {

  /** The last event of a stream that was applied. */
  public record Last(long version, String id) {
    public static final Last NONE = new Last(-1, "");
  }

  private VersionFilter() {}

  /** True: apply it; false: it was applied. */
  public static boolean isNew(String stream, Last last, Envelope event) {
    if (event.version() == last.version() && !event.id().equals(last.id())) {
      throw new IllegalStateException(
          "fork: " + stream + " version " + event.version() + ": " + last.id() + " was applied, " + event.id() + " came");
    }
    if (event.previous() > last.version()) {
      throw new IllegalStateException(
          "gap: " + stream + " version " + (last.version() + 1) + " is missing, " + event.version() + " came");
    }
    return event.version() > last.version();
  }
}
