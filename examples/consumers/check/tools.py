"""How each program is built, started and asked for its totals."""

import re
import shutil
import sys
from collections import Counter

from engines import ClickHouse, Connect, ConnectEnvelope, Flink
from pages import Page, PageFault
from program import JAVA_OPTIONS, Fault, Program, Wrong, compare, need, run, uncommitted, unnamed
from stage import CHECKOUT


class Python(Program):
    def __init__(self, name, script, *faults):
        super().__init__(name, "python")
        self.script, self.faults = script, faults

    def build(self):
        # Each framing and layout, through Confluent's deserialiser.
        run([sys.executable, "framings.py"], cwd=self.folder)

    def command(self, stage, state, until_end):
        return [sys.executable, "-u", self.source / self.script, self.topic(stage), state.with_suffix(".sqlite"), *until_end]


class PythonUnion(Python):
    """Confluent's deserialiser on the records of a relay with another layout and framing: the schema's id is in a header."""

    finds_gaps = False

    def prepare(self, stage):
        stage.published("union", "header")

    def topic(self, stage):
        return stage.published("union", "header")


def framings(record):
    headers = dict(record.headers())
    return headers["content-type"].decode(), "__value_schema_id" in headers


class Unprefixed:
    """On the topic of a relay that named schemas in `ce_dataschema` alone, and names them in a header now."""

    finds_gaps, is_killed = False, False

    def prepare(self, stage):
        stage.published("record", "none", then="header")

    def topic(self, stage):
        return stage.published("record", "none", then="header")

    def finish(self, stage, totals):
        found = set(map(framings, stage.records(self.topic(stage))))
        if not {("application/avro", False), ("application/avro", True)} <= found:
            raise Wrong(f"the topic has not the framings none and header: {found}")
        super().finish(stage, totals)


class PythonUnprefixed(Unprefixed, Python):
    pass


class Java(Program):
    """A module of java/. One build is for all of them."""

    keeps_state = False
    built, generated = set(), set()

    def __init__(self, name, module, main, *faults):
        super().__init__(name, "java")
        self.module, self.main, self.faults = module, main, faults

    def build(self):
        need("java", "Java 17 or later is needed")
        need("mvn", "Maven is needed")
        if not self.built:
            # `-C`: what has not its checksum is refused.
            run(["mvn", "-q", "-B", "-C", "package"], cwd=self.folder)
            self.built.add(self.folder)

    def interrupt(self, stage):
        self.generate(stage)
        super().interrupt(stage)

    def generate(self, stage):
        """The classes of the events, anew, from the schemas that the store has."""
        if not self.generated:
            schemas = stage.directory / "schemas"
            stage.ask_relay("schemas", "export", "--files", schemas)
            shutil.rmtree(self.folder / "events" / "target" / "generated-sources")
            run(["mvn", "-q", "-B", "-C", "-o", "package", f"-Dschemas={schemas}/bank_account"], cwd=self.folder)
            self.generated.add(self.folder)

    def build_fault(self, fault):
        """The changed file alone, to lie before the others in the class path."""
        file, faulty = self.source / fault.file, self.source / "faulty"
        faulty.mkdir()
        if file.suffix == ".java":
            run(["javac", "-nowarn", "-d", faulty, "-cp", self.class_path(), file])
        else:
            shutil.copy(file, faulty)

    def class_path(self):
        target = self.folder / self.module / "target"
        return f"{self.source}/faulty:{target}/classes:{target}/lib/*"

    def command(self, stage, state, until_end):
        return ["java", *JAVA_OPTIONS, "-cp", self.class_path(), self.main, *self.arguments(stage, state), *until_end]

    def arguments(self, stage, state):
        return [self.topic(stage)]


class Streams(Java):
    """Publishes balances to a topic, which is what counts: each event must have made one record there."""

    keeps_state = True
    second = None

    def arguments(self, stage, state):
        return [self.topic(stage), self.output(stage, state), state]

    def output(self, stage, state):
        """Of all instances of a run."""
        return f"{stage.name}-{state.name}".removesuffix(".state").removesuffix("-second")

    def kill_on_its_way(self, stage, state, commits=1):
        stage.create_topic(self.output(stage, state))
        super().kill_on_its_way(stage, state, commits)

    def interrupt(self, stage):
        """A second instance takes its share, and all of it when the first one is killed. It goes on through the second round."""
        self.generate(stage)
        stage.create_topic(self.output(stage, self.state(stage)))
        first = self.start(stage, self.state(stage))
        self.until_said(first, "applied")
        self.second = self.start(stage, self.state(stage, "-second"))
        self.until_said(self.second, *(f"partitions {number}" for number in range(1, 5)))
        first.kill()
        first.wait()

    def finish(self, stage, totals):
        if self.second:
            self.second.kill()
            if self.second.wait() != -9:
                raise Wrong(f"the second one ended with {self.second.returncode} by itself; see {self.name}.log")
            self.second = None
        super().finish(stage, totals)

    def found(self, stage, state):
        balances, count = {}, 0
        for record in stage.committed(self.output(stage, state)):
            balances[record.key().decode()] = int.from_bytes(record.value(), "big", signed=True)
            count += 1
        return {"balances": balances, "count": count}

    def run_to_end(self, stage, state):
        stage.create_topic(self.output(stage, state))
        run(self.command(stage, state, ["--until-end"]), env=self.environment(stage), cwd=self.source)
        return self.found(stage, state)


class Go(Program):
    keeps_state = False
    faults = (
        Fault("without version filter", "model.go", "case version <= known.version:", "case version < 0:"),
        unnamed("main.go", 'headers["ce_previousversion"]', 'headers["ce_previous"]'),
        uncommitted("main.go", "kgo.ReadCommitted()", "kgo.ReadUncommitted()"),
    )

    def build(self):
        need("go", "Go 1.26 or later is needed")
        self.build_fault(None)

    def build_fault(self, _fault):
        run(["go", "build", "-mod=readonly", "-o", self.source / "target" / "balances", "."], cwd=self.source)

    def command(self, stage, state, until_end):
        return [self.source / "target" / "balances", self.topic(stage), *until_end]


class JavaScript(Program):
    keeps_state = False

    def __init__(self, name, options, *faults):
        super().__init__(name, "javascript")
        self.options, self.faults = options, faults

    def build(self):
        need("node", "Node.js 18 or later is needed")
        need("npm", "it comes with Node.js")
        run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=self.folder)

    def command(self, stage, state, until_end):
        return ["node", self.source / "balances.js", self.topic(stage), *self.options, *until_end]


class JavaScriptUnprefixed(Unprefixed, JavaScript):
    pass


class Readme(Program):
    """The Python of README.md, word for word but for the addresses, on a topic in which there are events only."""

    passes_garbage, finds_gaps, is_killed = False, False, False
    python = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

    def finish(self, stage, totals):
        script, topic = stage.directory / "readme.py", stage.with_gap()[0]
        text, = self.python.findall((CHECKOUT / "README.md").read_text())
        for address, of in (("127.0.0.1:19092", stage.kafka), ("http://127.0.0.1:18081/apis/ccompat/v7", stage.registry)):
            if f'"{address}"' not in text:
                raise Wrong(f"README.md has not the address {address}")
            text = text.replace(address, of)
        script.write_text(text)
        said = Counter(tuple(line.split()[:2]) for line in run([sys.executable, script, topic]).splitlines())
        there = Counter((record.key().decode(), dict(record.headers())["ce_type"].decode()) for record in stage.records(topic))
        compare({"records": there}, {"records": said})


UNFILTERED_PYTHON = Fault("without version filter", "read_model.py", "if version <= last_version:\n            return False",
                          "if version <= last_version:\n            return True",
                          # The first event of a stream, once more: the table refuses it.
                          finds="UNIQUE constraint failed: accounts.stream")

UNFILTERED = Fault("without version filter", "events/src/main/java/annals/events/VersionFilter.java",
                   "return event.version() > last.version();", "return true;")

UNNAMED = unnamed("events/src/main/java/annals/events/Envelope.java", 'headers.lastHeader("ce_previousversion") != null', "false")

STREAMS = "streams/src/main/java/annals/StreamsBalances.java"

# A result that is written before the kill is in no transaction, and is not taken back: it is written again.
OUTSIDE = Fault("with results outside the transaction", STREAMS, """      context.forward(record.withValue(cents));
    }
""", """      var balances = context.applicationId().replaceFirst("-app$", "");
      outside.send(new org.apache.kafka.clients.producer.ProducerRecord<>(balances, record.key(), cents));
    }

    private final org.apache.kafka.clients.producer.KafkaProducer<String, Long> outside =
        new org.apache.kafka.clients.producer.KafkaProducer<>(
            java.util.Map.of("bootstrap.servers", System.getenv("ANNALS_KAFKA")),
            Serdes.String().serializer(), Serdes.Long().serializer());
""", is_killed=True, finds="count differ: +")

TOOLS = [
    Readme("readme", "python"),
    Python("python", "balances.py", uncommitted("balances.py"), UNFILTERED_PYTHON,
           unnamed("balances.py", 'headers.get("ce_previousversion")', "None")),
    Python("python-cloudevents", "balances_cloudevents.py", uncommitted("balances_cloudevents.py"), UNFILTERED_PYTHON,
           unnamed("balances_cloudevents.py", 'event.get_extension("previousversion")', "None")),
    PythonUnion("python-union", "balances.py"),
    PythonUnprefixed("python-unprefixed", "balances.py",
                     Fault("as if the id were in the value", "framings.py", 'headers["content-type"] ==', "True or",
                           finds="magic byte"),
                     Fault("with the framing header alone", "framings.py", 'b"\\0" + int(', "value or int(", finds="magic byte")),
    PythonUnprefixed("python-cloudevents-unprefixed", "balances_cloudevents.py"),
    Java("java", "consumer", "annals.Balances", uncommitted("consumer/src/main/java/annals/Balances.java"), UNFILTERED, UNNAMED),
    Java("java-cloudevents", "consumer", "annals.CloudEventsBalances",
         unnamed("consumer/src/main/java/annals/CloudEventsBalances.java", "named == null", "true")),
    Streams("kafka-streams", "streams", "annals.StreamsBalances", UNFILTERED,
            uncommitted(STREAMS, "StreamsConfig.EXACTLY_ONCE_V2", "StreamsConfig.AT_LEAST_ONCE"), OUTSIDE),
    Java("spring", "spring", "annals.SpringBalances", uncommitted("spring/src/main/resources/application.yaml",
                                                                  "read-committed", "read-uncommitted"), UNFILTERED),
    Flink("flink", "flink"),
    Go("go", "go"),
    JavaScript("javascript", [], uncommitted("balances.js", "readUncommitted: false", "readUncommitted: true"),
               Fault("without version filter", "balances.js", "if (version <= known.version) return false;", ""),
               unnamed("headers.js", "headers.ce_previousversion === undefined", "true")),
    JavaScript("javascript-cloudevents", ["--cloudevents"],
               unnamed("cloudevents.js", "event.previousversion === undefined", "true")),
    JavaScriptUnprefixed("javascript-unprefixed", [],
                         Fault("as if the id were in the value", "headers.js",
                               'text(headers["content-type"]) === "application/vnd.confluent.avro"', "true",
                               finds="does not begin with a schema's id")),
    JavaScriptUnprefixed("javascript-cloudevents-unprefixed", ["--cloudevents"]),
    ClickHouse("clickhouse", "check"),
    Connect("connect", "connect"),
    ConnectEnvelope("connect-envelope", "connect"),
]

FOLLOWED = [
    Page("python", (), (
        PageFault("with a wrong field", "examples/consumers/python/read_model.py", "cents: int\n", "cent: int\n",
                  "unexpected keyword argument 'cents'"),
        PageFault("with an amount added where it is to be subtracted", "examples/consumers/python/read_model.py", "-cents", "cents",
                  "it prints"),
        PageFault("with a file that is not there", "docs/consumers/python.md", "python balances.py", "python balance.py",
                  "it ended with 2"),
        PageFault("with a result that is not printed", "docs/consumers/python.md", '"bank_account-00001": ',
                  '"bank_account-00001": 1', "instead of"),
    )),
    Page("javascript", ("node", "npm"), (
        PageFault("with a wrong field", "examples/consumers/javascript/balances.js", "event.cents", "event.cent", "it prints"),
    )),
    Page("go", ("go",), (
        PageFault("with a wrong field", "examples/consumers/go/model.go", 'avro:"cents"', 'avro:"cent"', "it prints"),
    )),
    Page("java", ("java", "mvn")),
    Page("kafka-streams", ("java", "mvn")),
    Page("spring", ("java", "mvn")),
    Page("flink", ("java", "mvn", "psql")),
    Page("connect", ("java", "mvn", "psql")),
    Page("clickhouse"),
]
