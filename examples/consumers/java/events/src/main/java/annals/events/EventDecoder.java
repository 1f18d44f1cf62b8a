package annals.events;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.io.DatumReader;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.specific.SpecificData;
import org.apache.avro.specific.SpecificDatumReader;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.Deserializer;

/**
 * From a value to an object of the event's generated class: a zero byte, the id of the writer's schema in four bytes, and the
 * event. What Confluent's KafkaAvroDeserializer does; that one is not on Maven Central. An event whose class was not generated
 * comes as a GenericRecord.
 */
public final class EventDecoder implements Deserializer<Object> {
  private static final Duration TIMEOUT = Duration.ofSeconds(30);

  private String registry;
  private final HttpClient http = HttpClient.newBuilder().connectTimeout(TIMEOUT).build();
  private final Map<Integer, DatumReader<?>> readers = new ConcurrentHashMap<>();

  public EventDecoder(String registry) {
    this.registry = registry;
  }

  /** For a consumer that makes it by itself, from `value.deserializer`; `registry.url` is a property of the consumer then. */
  public EventDecoder() {}

  @Override
  public void configure(Map<String, ?> settings, boolean isKey) {
    if (registry == null) {
      registry = (String) settings.get("registry.url");
    }
  }

  /** Null for a record that is no event: what other producers write is not decoded. */
  @Override
  public Object deserialize(String topic, Headers headers, byte[] value) {
    return Envelope.of(headers, value).isEmpty() ? null : deserialize(topic, value);
  }

  @Override
  public Object deserialize(String topic, byte[] value) {
    if (value == null) {
      return null;
    }
    ByteBuffer buffer = ByteBuffer.wrap(value);
    if (value.length < 5 || buffer.get() != 0) {
      throw new SerializationException("the value does not begin with a schema's id");
    }
    DatumReader<?> reader = readers.computeIfAbsent(buffer.getInt(), this::reader);
    try {
      return reader.read(null, DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null));
    } catch (IOException | RuntimeException error) {
      throw new SerializationException("decode a value", error);
    }
  }

  /** The writer's schema says how the bytes lie; the class's own says what is made of them: fields by name, defaults. */
  private DatumReader<?> reader(int id) {
    Schema writer = new Schema.Parser().parse(schema(id));
    Class<?> type = SpecificData.get().getClass(writer);
    return type == null
        ? new GenericDatumReader<>(writer)
        : new SpecificDatumReader<>(writer, SpecificData.get().getSchema(type));
  }

  private String schema(int id) {
    try {
      HttpRequest request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).timeout(TIMEOUT).build();
      var answer = http.send(request, BodyHandlers.ofString());
      if (answer.statusCode() != 200) {
        throw new SerializationException("the registry answers " + answer.statusCode() + " for schema " + id);
      }
      return new ObjectMapper().readTree(answer.body()).get("schema").textValue();
    } catch (IOException error) {
      throw new SerializationException("ask the registry for schema " + id, error);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw new SerializationException("ask the registry for schema " + id, error);
    }
  }
}
