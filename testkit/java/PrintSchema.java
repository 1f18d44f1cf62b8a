import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.avro.Schema;

/** Prints schemas as a registry does that is written in Java: a line of JSON in, the definition; one out, what it is to Java. */
public class PrintSchema {
  public static void main(String[] arguments) throws IOException {
    ObjectMapper json = new ObjectMapper();
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      out.println(json.writeValueAsString(printed(json.readValue(line, String.class))));
    }
  }

  private static Map<String, String> printed(String definition) {
    try {
      return Map.of("schema", new Schema.Parser().parse(definition).toString());
    } catch (RuntimeException refused) {
      return Map.of("error", String.valueOf(refused.getMessage()));
    }
  }
}
