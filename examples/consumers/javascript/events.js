import avro from "avsc";

/** From a value to an event: a zero byte, the id of the writer's schema in four bytes, and the event in Avro. */
export class Events {
  #registry;
  #types = new Map(); // schema id -> promise of the type

  constructor(registry) {
    this.#registry = registry;
  }

  async decode(value) {
    if (value.length < 5 || value[0] !== 0) throw new Error("the value does not begin with a schema's id");
    const id = value.readUInt32BE(1);
    if (!this.#types.has(id)) this.#types.set(id, this.#fetch(id));
    const type = await this.#types.get(id);
    // `long` becomes a number; avsc throws beyond 2^53: see its `LongType.__with` for BigInt.
    return { type: type.name, event: type.fromBuffer(value.subarray(5)) };
  }

  async #fetch(id) {
    const answer = await fetch(`${this.#registry}/schemas/ids/${id}`, { signal: AbortSignal.timeout(30_000) });
    if (!answer.ok) throw new Error(`the registry answers ${answer.status} for schema ${id}`);
    const { schema } = await answer.json();
    // Logical types as their plain numbers; give avsc `logicalTypes` to have dates.
    return avro.Type.forSchema(JSON.parse(schema));
  }
}
