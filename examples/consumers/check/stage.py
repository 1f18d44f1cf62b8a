"""The stage of the check: a database, a relay that is killed on the way, the load, and what else a topic can have in it."""

import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time
import uuid

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

CHECK = pathlib.Path(__file__).parent
CHECKOUT = CHECK.parents[2]
CATEGORY = "bank_account"
DEADLINE_S = 240
# Errors only.
LIBRDKAFKA = {"log_level": 3}
APPENDS = int(os.environ.get("ANNALS_CONSUMERS_APPENDS", "6000"))


def until(what, is_done, error=SystemExit):
    deadline = time.monotonic() + DEADLINE_S
    while not is_done():
        if time.monotonic() > deadline:
            raise error(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.05)


def committed_records(kafka, topic):
    """Every committed record of a topic, from its beginning to its end."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "check", "enable.auto.commit": False,
                         "enable.partition.eof": True, "auto.offset.reset": "earliest"})
    try:
        metadata = consumer.list_topics(topic, timeout=10).topics[topic]
        left = set(metadata.partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
        while left:
            for record in consumer.consume(1000, timeout=1):
                if record.error() and record.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(record.partition())
                elif not record.error():
                    yield record
    finally:
        consumer.close()


class Stage:
    def __init__(self, programs, directory):
        self.name = f"consumers_{uuid.uuid4().hex[:8]}"
        self.programs, self.directory = programs, directory / self.name
        self.directory.mkdir(parents=True)
        self.kafka, self.registry = os.environ["ANNALS_KAFKA"], os.environ["ANNALS_REGISTRY_URL"]
        self.server = server = os.environ["ANNALS_DATABASE_URL"]
        self.database_url = f"{server.rpartition('/')[0]}/{self.name}"
        self.topic = f"{self.name}-{CATEGORY}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"create database {self.name}")
        self.relays = {"consumers": None}
        self.topics = {"consumers": self.topic}
        self.environment = os.environ | {"ANNALS_DATABASE_URL": self.database_url, "NO_COLOR": "1"}
        self.changes, self.gap = {}, None
        self._configure("consumers", self.name)

    def _configure(self, deployment, prefix, more=""):
        (self.directory / f"{deployment}.toml").write_text(
            f'[relay]\ndeployment = "{deployment}"\ninstance = "a"\n'
            f'[topics]\nprefix = "{prefix}-"\nclaims = "{prefix}.claims"\npartitions = 4\n{more}'
            '[registry]\nauto_register = true\n[http]\nlisten = "127.0.0.1:0"\n')
        self._relay("migrate", deployment).wait()

    def published(self, layout, framing="prefix", then=None):
        """The topic of a relay that publishes the same events in another layout or framing; it is killed like the first one. To
        be called before the first round. `then`: the framing since the kill in the second round; the topic has both."""
        deployment = f"{layout}-{framing}"
        if deployment not in self.topics:
            prefix = f"{self.name}.{deployment}"
            self.topics[deployment] = f"{prefix}-{CATEGORY}"
            self.relays[deployment] = None
            self._configure(deployment, prefix, f'framing = "{framing}"\n[topics.layouts]\n{CATEGORY} = "{layout}"\n')
            if then:
                self.changes[deployment] = f'framing = "{framing}"', f'framing = "{then}"'
        return self.topics[deployment]

    def _relay(self, command, deployment):
        with open(self.directory / f"{deployment}.log", "ab") as log:
            return subprocess.Popen([self.programs / "annals-relay", command, "--config", self.directory / f"{deployment}.toml"],
                                    env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ask_relay(self, *arguments, deployment="consumers"):
        """What a subcommand of the relay prints."""
        command = [self.programs / "annals-relay", *arguments, "--config", self.directory / f"{deployment}.toml"]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def _start_relays(self):
        self.relays = {deployment: relay or self._relay("run", deployment) for deployment, relay in self.relays.items()}

    def round(self, number, appends=APPENDS, removes=False):
        """Appends with many writers while the relays publish; kills them on the way, and starts them again. `removes`: events are
        removed before a relay has read them."""
        self._start_relays()
        load = subprocess.Popen(
            [self.programs / "annals-consumers-load", "--round", str(number), "--appends", str(appends)],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        for acknowledged, _line in enumerate(load.stdout, 1):
            if acknowledged == appends // 2:
                behind = self._kill_relays()
            if acknowledged == appends * 3 // 4:
                removed = self._remove(behind) if removes else []
                if number == 2:
                    self._change_settings()
                self._start_relays()
        if load.wait() != 0:
            raise SystemExit("the load failed; what it says is above")
        self._until_published()
        if removes:
            named = sum("ce_previousversion" in dict(record.headers()) for record in self.records(self.topic))
            if not 0 < len(removed) == named:
                raise SystemExit(f"{len(removed)} events were removed, and {named} records name the event before them")

    def _change_settings(self):
        for deployment, (old, new) in self.changes.items():
            file = self.directory / f"{deployment}.toml"
            file.write_text(file.read_text().replace(old, new))

    def _kill_relays(self):
        """The position behind which no relay has read anything then."""
        for relay in self.relays.values():
            relay.kill()
            relay.wait()
        self.relays = dict.fromkeys(self.relays)
        return self.rows("select max(position) from annals.events")[0][0]

    def _remove(self, behind):
        with psycopg.connect(self.database_url) as connection:
            connection.execute("select annals.administer('the check of consumers')")
            return connection.execute((CHECK / "remove_unpublished.sql").read_text(), {"behind": behind}).fetchall()

    def _until_published(self):
        count = self.totals()["count"]
        for topic in self.topics.values():
            until(f"{count} events are in {topic}", lambda: self._published(topic) >= count)

    def _published(self, topic):
        return len({dict(record.headers())["ce_id"] for record in self.records(topic)})

    def records(self, topic):
        """Every committed event of a topic, from its beginning to its end, with repetitions."""
        return (record for record in self.committed(topic) if record.headers())

    def with_gap(self):
        """A topic with some streams of the first one, in which one event is lost; and that event's stream and version."""
        if not self.gap:
            topic = f"{self.name}.gap-{CATEGORY}"
            self.create_topic(topic)
            some, lost = {}, None
            for record in self.records(self.topic):
                streams = some.setdefault(record.partition(), {})
                if record.key() in streams or len(streams) < 20:
                    streams.setdefault(record.key(), []).append(record)
            producer = Producer(LIBRDKAFKA | {"bootstrap.servers": self.kafka, "enable.idempotence": True})
            for record in [it for streams in some.values() for stream in streams.values() for it in stream]:
                of = record.key().decode(), int(dict(record.headers())["ce_streamversion"])
                if of[1] == 1 and lost is None:
                    lost = of
                if of != lost:
                    producer.produce(topic, record.value(), record.key(), record.partition(), headers=record.headers(),
                                     timestamp=record.timestamp()[1])
            producer.flush()
            self.gap = topic, *lost
        return self.gap

    def create_topic(self, name):
        admin = AdminClient(LIBRDKAFKA | {"bootstrap.servers": self.kafka})
        try:
            admin.create_topics([NewTopic(name, num_partitions=4)])[name].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def committed(self, topic):
        return committed_records(self.kafka, topic)

    def totals(self):
        with psycopg.connect(self.database_url) as connection:
            return connection.execute((CHECK / "totals.sql").read_text()).fetchone()[0]

    def rows(self, statement):
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement).fetchall()

    def is_read(self, group, topic):
        """Whether a consumer group has committed the last record of each partition. Its lag may never be 0: Connect commits the
        offset behind a record, and behind the last one is the marker of its transaction."""
        last = {}
        for record in self.committed(topic):
            last[record.partition()] = record.offset()
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": group, "enable.auto.commit": False})
        try:
            partitions = [TopicPartition(topic, partition) for partition in last]
            return all(it.offset > last[it.partition] for it in consumer.committed(partitions, timeout=10))
        finally:
            consumer.close()

    def create_schema(self, schema, tables=None):
        """A schema, with the tables of a file."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(f"create schema {schema}")
            connection.execute(f"set search_path = {schema}")
            if tables:
                connection.execute(tables.read_text())

    def add_noise(self):
        """What the contract allows a topic to have beside the events, once each: repetitions, an aborted transaction, a tombstone."""
        for topic in self.topics.values():
            self._add_noise(topic)

    def _add_noise(self, topic):
        last, repeated, schema = {}, {}, None
        for record in self.records(topic):
            headers = dict(record.headers())
            last[record.key()] = record
            # One stretch of each partition, as it is when a relay that delivers at least once is killed.
            stretch = repeated.setdefault(record.partition(), [])
            if len(stretch) < 100:
                stretch.append(record)
            if headers["ce_type"].endswith(b"MoneyPaidIn"):
                schema = record
        producer = Producer(LIBRDKAFKA | {"bootstrap.servers": self.kafka, "enable.idempotence": True})
        for record in [it for stretch in repeated.values() for it in stretch]:
            producer.produce(topic, record.value(), record.key(), record.partition(),
                             headers=record.headers(), timestamp=record.timestamp()[1])
        tombstone = next(iter(last.values()))
        producer.produce(topic, None, tombstone.key(), tombstone.partition())
        producer.flush()
        self._abort(topic, last.values(), schema)

    def _abort(self, topic, last, paid_in):
        """Money for every account, in a transaction that is aborted: consumers of committed records do not see it."""
        producer = Producer(LIBRDKAFKA | {"bootstrap.servers": self.kafka, "transactional.id": f"{topic}-aborted"})
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        for record in last:
            version = int(dict(record.headers())["ce_streamversion"]) + 1
            fresh = {"ce_streamversion": str(version).encode(), "ce_id": str(uuid.uuid4()).encode(),
                     "ce_subject": record.key()}
            headers = dict(paid_in.headers()) | fresh
            producer.produce(topic, paid_in.value(), record.key(), record.partition(), headers=list(headers.items()),
                             timestamp=record.timestamp()[1])
        # Sent, or there is nothing to abort.
        producer.flush()
        producer.abort_transaction(DEADLINE_S)

    def add_garbage(self):
        """Records of another producer: bytes that are no Avro, and no headers."""
        producer = Producer(LIBRDKAFKA | {"bootstrap.servers": self.kafka})
        for topic in self.topics.values():
            for partition in range(4):
                producer.produce(topic, b"hello", b"test", partition)
        producer.flush()

    def end(self, is_kept):
        """Ends the relays, and removes what the check made, unless a program failed."""
        for relay in filter(None, self.relays.values()):
            relay.send_signal(signal.SIGTERM)
            relay.wait()
        if is_kept:
            print(f"kept: database {self.database_url}, topics {self.name}-*, logs in {self.directory}")
            return
        admin = AdminClient(LIBRDKAFKA | {"bootstrap.servers": self.kafka})
        topics = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(self.name)]
        for deleted in admin.delete_topics(topics).values():
            deleted.result()
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"drop database {self.name} with (force)")
        shutil.rmtree(self.directory)
