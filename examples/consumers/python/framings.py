"""The framings of docs/topics.md: `framed` makes the first one of each, which all deserialisers read.

As a program, it shows what Confluent's deserialiser makes of each framing and layout, with a registry in memory; it prints one
line for each, or raises:

    python framings.py
"""

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

PAID = '{"type": "record", "name": "bank.Paid", "fields": [{"name": "by", "type": "string"}]}'
CLOSED = '{"type": "record", "name": "bank.Closed", "fields": [{"name": "last", "type": "bank.Paid"}]}'
UNION = f"[{PAID}, {CLOSED}]"
ENVELOPE = f'{{"type": "record", "name": "annals.bank.Envelope", "fields": [{{"name": "event", "type": {UNION}}}]}}'
ANN = b"\x12Ann Smith"


def framed(headers, value):
    """A value with the registry's five bytes before it, wherever its record names the schema. `headers`: the last of each name.

    Where the five bytes are in a header, the deserialiser finds them by itself if it gets the headers; but it refuses values of
    fewer than 6 bytes then.
    """
    if headers["content-type"] == b"application/vnd.confluent.avro":
        return value
    if "__value_schema_id" in headers:
        return headers["__value_schema_id"] + value
    # The address is the relay's; the id behind its last slash is what counts.
    return b"\0" + int(headers["ce_dataschema"].rpartition(b"/")[2]).to_bytes(4, "big") + value


def main():
    registry = SchemaRegistryClient.new_client({"url": "mock://"})
    decode = AvroDeserializer(registry)

    def id_of(subject, definition):
        return b"\0" + registry.register_schema(subject, Schema(definition, "AVRO")).to_bytes(4, "big")

    def check(what, value, headers, expected):
        found = decode(value, SerializationContext("bank", MessageField.VALUE, headers))
        assert found == expected, f"{what}: {found}"
        print(what)

    paid = {"by": "Ann Smith"}
    record = id_of("bank-bank.Paid", PAID)
    check("prefix", record + ANN, [], paid)
    plain = {"content-type": b"application/avro", "ce_dataschema": b"http://registry:8081/schemas/ids/%d" % int.from_bytes(record)}
    check("none, with the id before the value", framed(plain, ANN), [], paid)
    small = plain | {"__value_schema_id": record}
    check("header, of a small value, with the id before it", framed(small, b"\x06Ann"), [], {"by": "Ann"})
    check("header", ANN, [("ce_id", b"1"), ("__value_schema_id", record)], paid)
    union, envelope = id_of("bank-value", UNION), id_of("envelopes-value", ENVELOPE)
    # One byte before the stored event: the first or the second branch.
    check("union", union + b"\x00" + ANN, [], paid)
    check("union, second branch", union + b"\x02" + ANN, [], {"last": paid})
    check("envelope", envelope + b"\x00" + ANN, [], {"event": paid})


if __name__ == "__main__":
    main()
