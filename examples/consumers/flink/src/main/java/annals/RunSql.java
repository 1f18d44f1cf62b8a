package annals;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/**
 * Runs a file of Flink SQL in a cluster inside this process; what the SQL client and a real cluster do for you.
 *
 * <pre>RunSql FILE CHECKPOINT_DIRECTORY</pre>
 *
 * Begins at the newest complete checkpoint of the directory, if there is one.
 */
public final class RunSql {
  private static final Pattern VARIABLE = Pattern.compile("\\$\\{(\\w+)}");

  private static final Pattern SETTING = Pattern.compile("set '(.+)' = '(.+)'");

  public static void main(String[] arguments) throws Exception {
    Path checkpoints = Path.of(arguments[1]).toAbsolutePath();
    var settings = new Configuration();
    settings.setString("execution.checkpointing.dir", checkpoints.toUri().toString());
    // Kept when the job is cancelled. When it is killed they stay anyway.
    settings.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
    settings.setString("parallelism.default", "2");
    newest(checkpoints).ifPresent(it -> {
      System.out.println("restores " + it);
      settings.setString("execution.state-recovery.path", it.toUri().toString());
    });
    var tables = TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(settings).build());
    for (String statement : statements(Files.readString(Path.of(arguments[0])))) {
      Matcher setting = SETTING.matcher(statement);
      if (setting.matches()) {
        tables.getConfig().set(setting.group(1), setting.group(2));
        continue;
      }
      var result = tables.executeSql(statement);
      if (result.getJobClient().isPresent()) {
        result.await();
      }
    }
    System.out.println("ended");
  }

  private static String[] statements(String text) {
    String withoutComments = text.lines().filter(it -> !it.strip().startsWith("--")).collect(Collectors.joining("\n"));
    String filled = VARIABLE.matcher(withoutComments).replaceAll(it -> Matcher.quoteReplacement(variable(it.group(1))));
    return Arrays.stream(filled.split(";\\s*(\\n\\s*\\n|$)")).map(String::strip).filter(it -> !it.isEmpty())
        // The last semicolon of a statement set is a part of it.
        .map(it -> it.endsWith("end") ? it + ";" : it).toArray(String[]::new);
  }

  private static String variable(String name) {
    String value = System.getenv(name);
    if (value == null) {
      throw new IllegalArgumentException(name + " is not set");
    }
    return value;
  }

  /** A checkpoint is complete once it has its metadata. */
  private static Optional<Path> newest(Path checkpoints) throws IOException {
    if (!Files.isDirectory(checkpoints)) {
      return Optional.empty();
    }
    try (var files = Files.walk(checkpoints, 3)) {
      return files.filter(it -> it.endsWith("_metadata")).max(Comparator.comparing(RunSql::modified)).map(Path::getParent);
    }
  }

  private static java.nio.file.attribute.FileTime modified(Path file) {
    try {
      return Files.getLastModifiedTime(file);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
