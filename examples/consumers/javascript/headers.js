/** The event of a record, by its headers; null for a tombstone, a test message, another producer's record. */
export function envelope({ key, value, headers }) {
  if (value === null || headers?.ce_streamversion === undefined) return null;
  const version = Number(text(headers.ce_streamversion));
  // Named where it is not the version before: events between are never published.
  const previous = headers.ce_previousversion === undefined ? version - 1 : Number(text(headers.ce_previousversion));
  return { stream: key.toString(), version, previous, id: text(headers.ce_id), value: framed(headers, value) };
}

/** A value with the registry's five bytes before it, wherever its record names the schema: see docs/topics.md, "Framing". */
export function framed(headers, value) {
  if (text(headers["content-type"]) === "application/vnd.confluent.avro") return value;
  if (headers.__value_schema_id !== undefined) return Buffer.concat([last(headers.__value_schema_id), value]);
  // The address is the relay's; the id behind its last slash is what counts.
  const id = Buffer.alloc(5);
  id.writeUInt32BE(Number(text(headers.ce_dataschema).split("/").at(-1)), 1);
  return Buffer.concat([id, value]);
}

/** Headers are Buffers; an array of them where a name is there twice, and the last one is the contract's then. */
export function text(header) {
  return last(header).toString();
}

function last(header) {
  return Array.isArray(header) ? header.at(-1) : header;
}
