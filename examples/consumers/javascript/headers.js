/** The event of a record, by its headers; null for a tombstone, a test message, another producer's record. */
export function envelope({ key, value, headers }) {
  if (value === null || headers?.ce_streamversion === undefined) return null;
  const version = Number(text(headers.ce_streamversion));
  // Named where it is not the version before: events between are never published.
  const previous = headers.ce_previousversion === undefined ? version - 1 : Number(text(headers.ce_previousversion));
  return { stream: key.toString(), version, previous, id: text(headers.ce_id), value };
}

/** Headers are Buffers; an array of them where a name is there twice, and the last one is the contract's then. */
export function text(header) {
  return (Array.isArray(header) ? header.at(-1) : header).toString();
}
