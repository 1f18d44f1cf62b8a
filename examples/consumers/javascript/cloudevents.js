import { Kafka } from "cloudevents";
import { framed, text } from "./headers.js";

/** The same as in headers.js, through the official CloudEvents package: it reads the headers, and hands out the value as it is. */
export function envelope({ key, value, headers }) {
  // Asked before it is parsed: the package throws on a record that is no CloudEvent.
  if (value === null || headers?.ce_streamversion === undefined) return null;
  // The package takes headers as text, and kafkajs has them as Buffers.
  const texts = Object.fromEntries(Object.entries(headers).map(([name, of]) => [name, text(of)]));
  const event = Kafka.toEvent({ key: key.toString(), value, headers: texts });
  // Extension attributes stay text.
  const version = Number(event.streamversion);
  const previous = event.previousversion === undefined ? version - 1 : Number(event.previousversion);
  return { stream: event.subject, version, previous, id: event.id, value: framed(headers, event.data) };
}
