"""What Confluent's deserialiser makes of each framing and layout of docs/topics.md, with a registry in memory.

    python framings.py

It prints one line for each, or raises.
"""

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

PAID = '{"type": "record", "name": "bank.Paid", "fields": [{"name": "by", "type": "string"}]}'
CLOSED = '{"type": "record", "name": "bank.Closed", "fields": [{"name": "last", "type": "bank.Paid"}]}'
UNION = f"[{PAID}, {CLOSED}]"
ENVELOPE = f'{{"type": "record", "name": "annals.bank.Envelope", "fields": [{{"name": "event", "type": {UNION}}}]}}'
ANN = b"\x12Ann Smith"


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
    check("header", ANN, [("ce_id", b"1"), ("__value_schema_id", record)], paid)
    union, envelope = id_of("bank-value", UNION), id_of("envelopes-value", ENVELOPE)
    # One byte before the stored event: the first or the second branch.
    check("union", union + b"\x00" + ANN, [], paid)
    check("union, second branch", union + b"\x02" + ANN, [], {"last": paid})
    check("envelope", envelope + b"\x00" + ANN, [], {"event": paid})


if __name__ == "__main__":
    main()
