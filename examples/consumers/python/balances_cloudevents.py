"""The same balances through the official CloudEvents package: the headers are parsed by it, the value by a format for Avro.

    python balances_cloudevents.py TOPIC DATABASE [--until-end]
"""

import json
import os
import sys

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.base import Format
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from framings import framed
from read_model import ReadModel, typed


class RegisteredAvro(Format):
    """A value behind the registry's five bytes. The package comes with JSON only."""

    def __init__(self, topic):
        self.deserializer = AvroDeserializer(SchemaRegistryClient({"url": os.environ["ANNALS_REGISTRY_URL"]}))
        self.context = SerializationContext(topic, MessageField.VALUE)

    def read_data(self, body, datacontenttype):
        return self.deserializer(body, self.context)

    def read(self, event_factory, data):
        raise NotImplementedError("events of Annals are in binary mode")

    def write(self, event):
        raise NotImplementedError("this consumer writes no events")

    def write_data(self, data, datacontenttype):
        raise NotImplementedError("this consumer writes no events")

    def get_content_type(self):
        return "application/vnd.confluent.avro"


def main(topic, path, until_end):
    model, avro = ReadModel(path), RegisteredAvro(topic)
    consumer = Consumer({
        "bootstrap.servers": os.environ["ANNALS_KAFKA"],
        "group.id": "balances-cloudevents",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        # A process that was killed keeps its partitions so long.
        "session.timeout.ms": 10000,
        "enable.partition.eof": True,
    })
    ended, assigned = set(), set()

    def on_assign(consumer, partitions):
        for partition in partitions:
            offset = model.next_offset(partition.topic, partition.partition)
            partition.offset = OFFSET_BEGINNING if offset is None else offset
            assigned.add(partition.partition)
        consumer.assign(partitions)

    consumer.subscribe([topic], on_assign=on_assign)
    try:
        while not (until_end and assigned and ended >= assigned):
            records = consumer.consume(num_messages=500, timeout=1)
            with model.transaction():
                applied = sum(take(model, avro, record, ended) for record in records)
            if applied:
                print("applied", applied, flush=True)
    finally:
        consumer.close()
    print(json.dumps({"balances": model.balances()}))


def take(model, avro, record, ended):
    if error := record.error():
        if error.code() == KafkaError._PARTITION_EOF:
            ended.add(record.partition())
            return 0
        raise KafkaException(error)
    model.passed(record.topic(), record.partition(), record.offset())
    headers = dict(record.headers() or [])
    # Asked before it is parsed: the package raises on a record that is no CloudEvent.
    if record.value() is None or "ce_streamversion" not in headers:
        return 0
    event = from_binary(KafkaMessage(headers, record.key(), framed(headers, record.value())), avro)
    # Extension attributes come as text.
    version, previous = int(event.get_extension("streamversion")), event.get_extension("previousversion")
    if not model.is_new(event.get_subject(), version, event.get_id(), previous):
        return 0
    model.apply(event.get_subject(), typed(event.get_type(), event.get_data()))
    return 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--until-end" in sys.argv[3:])
