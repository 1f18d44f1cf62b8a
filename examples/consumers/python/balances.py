"""Balances of bank accounts in SQLite, each event applied exactly once: confluent-kafka.

    python balances.py TOPIC DATABASE [--until-end]

Where Kafka and the schema registry are: ANNALS_KAFKA, ANNALS_REGISTRY_URL. `--until-end` ends where the topic ends, and prints
the balances as JSON; without it the program goes on until it is stopped. Kill it as you like, and start it again.
"""

import json
import os
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from framings import framed
from read_model import ReadModel, typed


def main(topic, path, until_end):
    model = ReadModel(path)
    consumer = Consumer({
        "bootstrap.servers": os.environ["ANNALS_KAFKA"],
        "group.id": "balances",
        # librdkafka's default, unlike Java's. Written down all the same: without it, aborted transactions are read.
        "isolation.level": "read_committed",
        # The offsets are the read model's.
        "enable.auto.commit": False,
        # Never "earliest" without a word: an offset that is out of range means that records are gone.
        "auto.offset.reset": "error",
        # A process that was killed keeps its partitions so long.
        "session.timeout.ms": 10000,
        "enable.partition.eof": True,
    })
    decode = AvroDeserializer(SchemaRegistryClient({"url": os.environ["ANNALS_REGISTRY_URL"]}))
    ended, assigned = set(), set()

    def on_assign(consumer, partitions):
        for partition in partitions:
            offset = model.next_offset(partition.topic, partition.partition)
            partition.offset = OFFSET_BEGINNING if offset is None else offset
            assigned.add(partition.partition)
        consumer.assign(partitions)

    def on_revoke(_consumer, partitions):
        for partition in partitions:
            assigned.discard(partition.partition)
            ended.discard(partition.partition)

    consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke)
    try:
        while not (until_end and assigned and ended >= assigned):
            records = consumer.consume(num_messages=500, timeout=1)
            with model.transaction():  # One for all of them: the read model, the versions and the offsets.
                applied = sum(take(model, decode, record, ended) for record in records)
            if applied:
                print("applied", applied, flush=True)
    finally:
        consumer.close()
    print(json.dumps({"balances": model.balances()}))


def take(model, decode, record, ended):
    """Applies one record, in the transaction of the caller. Returns how many events it was."""
    if error := record.error():
        if error.code() == KafkaError._PARTITION_EOF:
            ended.add(record.partition())
            return 0
        raise KafkaException(error)
    model.passed(record.topic(), record.partition(), record.offset())
    headers = dict(record.headers() or [])
    # No event: a tombstone, a test message, another producer's record. Nothing of the relay's is without these.
    if record.value() is None or "ce_streamversion" not in headers:
        return 0
    stream = record.key().decode()
    version, event_id = int(headers["ce_streamversion"]), headers["ce_id"].decode()
    if not model.is_new(stream, version, event_id, headers.get("ce_previousversion")):
        return 0
    fields = decode(framed(headers, record.value()), SerializationContext(record.topic(), MessageField.VALUE))
    model.apply(stream, typed(headers["ce_type"].decode(), fields))
    return 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--until-end" in sys.argv[3:])
