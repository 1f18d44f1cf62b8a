"""How each program is built, started and asked for its totals."""

import atexit
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass

from stage import until

CONSUMERS = pathlib.Path(__file__).resolve().parents[1]
RUN_SECONDS_MAX = 300
# Small, quick to start, and no telemetry.
JAVA_OPTIONS = ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]


class Missing(Exception):
    """What this machine lacks."""


class Wrong(Exception):
    """What a program did not do."""


@dataclass(frozen=True)
class Fault:
    """A change to a program's source, after which its totals must differ."""
    name: str
    file: str
    old: str
    new: str


def spawn(command, **options):
    """Starts what is killed by the caller, or at the end of the check."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    atexit.register(process.kill)
    return process


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def need(program, how):
    if not shutil.which(program):
        raise Missing(f"{program} is not on this machine; {how}")


def run(command, **options):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, **options)
    except subprocess.TimeoutExpired as late:
        raise Wrong(str(late)) from late
    if done.returncode != 0:
        said = done.stdout + done.stderr
        marked = "\n".join(line for line in said.splitlines() if is_marked(line))
        raise Wrong(f"{' '.join(map(str, command[:4]))} ended with {done.returncode}:\n{marked[:1000]}\n{said[-3000:]}")
    return done.stdout


def is_marked(line):
    """Whether it says that events were wrong, and not that something else was."""
    return any(mark in line for mark in ("fork: ", "gap: ", "differ: "))


def unnamed(file, old, new):
    return Fault("without the header of a predecessor", file, old, new)


def uncommitted(file, old='"read_committed"', new='"read_uncommitted"'):
    return Fault("reading uncommitted", file, old, new)


class Program:
    """A program that is started with a topic and a place for its state, says `applied N` on its way, and prints totals at its
    end, as JSON. `keeps_state`: killed and started again, it goes on; without, it begins again."""

    passes_garbage = True
    keeps_state = True
    finds_gaps = True
    is_killed = True
    faults = ()
    # Another topic than the stage's first one.
    read_topic = None

    def __init__(self, name, folder):
        self.name, self.folder = name, CONSUMERS / folder
        self.source = self.folder

    def build(self):
        """Fetches and compiles; raises Missing."""

    def prepare(self, stage):
        """What the program needs of the stage, before the first round."""

    def topic(self, stage):
        return self.read_topic or stage.topic

    def build_fault(self, fault):
        """Compiles the copy of the program that has the fault; nothing where the source is what runs."""

    def command(self, stage, state, until_end):
        raise NotImplementedError

    def environment(self, stage):
        return os.environ | {"ANNALS_DATABASE_URL": stage.database_url}

    def state(self, stage, run=""):
        return stage.directory / f"{self.name}{run}"

    def interrupt(self, stage):
        """SIGKILL as soon as something is applied."""
        log = open(stage.directory / f"{self.name}.log", "ab")
        process = spawn(self.command(stage, self.state(stage), []), env=self.environment(stage), cwd=self.source,
                        stdout=subprocess.PIPE, stderr=log, text=True)
        for line in process.stdout:
            if line.startswith("applied"):
                process.kill()
                break
        if process.wait() != -9:
            raise Wrong(f"it ended with {process.returncode} before it had applied anything; see {log.name}")

    def run_to_end(self, stage, state):
        out = run(self.command(stage, state, ["--until-end"]), env=self.environment(stage), cwd=self.source)
        return json.loads(out.strip().splitlines()[-1])

    def finish(self, stage, totals):
        compare(totals, self.run_to_end(stage, self.state(stage)))

    def stop_at_gap(self, stage):
        """On a topic in which an event is lost it must end with an error that names the event."""
        self.read_topic, stream, version = stage.with_gap()
        try:
            self.run_to_end(stage, self.state(stage, "-gap.state"))
        except Wrong as wrong:
            if f"gap: {stream} version {version} " not in str(wrong):
                raise
            return
        finally:
            self.read_topic = None
        raise Wrong(f"it reads on behind a gap: version {version} of {stream}")

    def fail(self, stage, totals, fault):
        """Runs with the fault, from the beginning; right totals are the failure then, and so is an error of another kind."""
        copy = stage.directory / f"{self.name}-{fault.name.replace(' ', '-')}"
        shutil.copytree(self.folder, copy, symlinks=True, ignore=shutil.ignore_patterns("target"))
        text = (self.folder / fault.file).read_text()
        if fault.old not in text:
            raise Wrong(f"{fault.file} has no {fault.old!r} to plant the fault at")
        (copy / fault.file).write_text(text.replace(fault.old, fault.new))
        self.source = copy
        try:
            self.build_fault(fault)
            try:
                compare(totals, self.run_to_end(stage, self.state(stage, f"-{fault.name.replace(' ', '-')}.state")))
            except Wrong as wrong:
                if not is_marked(reason(wrong)):
                    raise
                print(f"  {self.name}, {fault.name}: {reason(wrong)[:160]}", flush=True)
                return
        finally:
            self.source = self.folder
        raise Wrong(f"the check did not see the fault {fault.name!r}")


def reason(wrong):
    """The line of what a program says that tells why it ended; a stack of calls is around it."""
    lines = str(wrong).strip().splitlines()
    return next((line for line in reversed(lines) if is_marked(line)), lines[-1]).strip()


def compare(expected, found):
    if not found:
        raise Wrong("it has no totals")
    for what, values in found.items():
        wanted = expected[what]
        if not isinstance(wanted, dict) and wanted != values:
            raise Wrong(f"{what} differ: {values} instead of {wanted}")
        if wanted != values:
            different = sorted(key for key in wanted.keys() | values.keys() if wanted.get(key) != values.get(key))
            some = ", ".join(f"{key}: {values.get(key)} instead of {wanted.get(key)}" for key in different[:3])
            raise Wrong(f"{len(different)} of {len(wanted)} {what} differ: {some}")


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

    def arguments(self, stage, state):
        return [self.topic(stage), self.output(stage, state), state]

    def output(self, stage, state):
        return f"{stage.name}-{state.name}".replace(".state", "")

    def interrupt(self, stage):
        stage.create_topic(self.output(stage, self.state(stage)))
        super().interrupt(stage)

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


class Flink(Program):
    """Runs on for ever. What it has arrived at is in PostgreSQL, and whether it restores a checkpoint is in what it says."""

    passes_garbage = False
    finds_gaps = False
    faults = (
        Fault("without version filter", "accounts.sql", """ from (
  select *, row_number() over (partition by account, version order by arrived) as repetition
  from account_records
  where version is not null
)
where repetition = 1;""", " from account_records where version is not null;"),
        uncommitted("accounts.sql", "'read_committed'", "'read_uncommitted'"),
    )

    def build(self):
        need("java", "Java 17 or later is needed")
        need("mvn", "Maven is needed")
        run(["mvn", "-q", "-B", "-C", "package"], cwd=self.folder)

    def command(self, stage, state, until_end):
        target = self.folder / "target"
        opens = [f"--add-opens=java.base/{it}=ALL-UNNAMED" for it in ("java.lang", "java.util", "java.time", "java.nio")]
        return ["java", *JAVA_OPTIONS, "-Xmx1g", *opens, "-cp", f"{target}/classes:{target}/lib/*", "annals.RunSql",
                self.statements(stage), state]

    def statements(self, stage):
        return self.source / "accounts.sql"

    def environment(self, stage, schema="flink", bounded="unbounded"):
        url = urllib.parse.urlsplit(stage.database_url)
        return super().environment(stage) | {
            "ANNALS_TOPIC": self.topic(stage), "SCAN_BOUNDED_MODE": bounded,
            "JDBC_URL": f"jdbc:postgresql://{url.hostname}:{url.port}{url.path}?currentSchema={schema}",
            "DATABASE_USER": url.username, "DATABASE_PASSWORD": url.password}

    def start(self, stage):
        log = open(stage.directory / f"{self.name}.log", "ab")
        return spawn(self.command(stage, self.state(stage), []), env=self.environment(stage), cwd=self.source,
                     stdout=subprocess.PIPE, stderr=log, text=True)

    def interrupt(self, stage):
        self.first_windows = set(stage.totals()["windows"])
        stage.create_schema("flink", self.folder / "read_model.sql")
        process = self.start(stage)
        try:
            until("a checkpoint is complete and something is written", lambda: process.poll() is not None or (
                any(self.state(stage).glob("*/chk-*/_metadata")) and self.found(stage, "flink")["balances"]))
        finally:
            process.kill()
        if process.wait() != -9:
            raise Wrong(f"it ended with {process.returncode} by itself; see {self.name}.log")

    def found(self, stage, schema):
        windows = stage.rows(f"select second_begins || ' ' || event_type, events, cents from {schema}.turnover")
        return {"balances": dict(stage.rows(f"select account, cents from {schema}.balances")),
                "windows": {window: [events, cents] for window, events, cents in windows}}

    def finish(self, stage, totals):
        process = self.start(stage)
        try:
            first = process.stdout.readline()
            if not first.startswith("restores"):
                raise Wrong(f"it restores no checkpoint: {first!r}; see {self.name}.log")
            # What windows are closed depends on what came after them: those of the first round are, by the second one.
            is_done = lambda found: found["balances"] == totals["balances"] and self.first_windows <= found["windows"].keys()
            until("Flink has the totals", lambda: process.poll() is not None or is_done(self.found(stage, "flink")), Wrong)
            if process.poll() is not None:
                raise Wrong(f"it ended with {process.returncode}; see {self.name}.log")
            found = self.found(stage, "flink")
            compare({"windows": {window: totals["windows"].get(window) for window in found["windows"]}},
                    {"windows": found["windows"]})
        finally:
            process.kill()
            process.wait()

    def run_to_end(self, stage, state):
        schema = "".join(it if it.isalnum() else "_" for it in state.name)
        stage.create_schema(schema, self.folder / "read_model.sql")
        run(self.command(stage, state, []), env=self.environment(stage, schema, "latest-offset"), cwd=self.source)
        return self.found(stage, schema)


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
    faults = (
        Fault("without version filter", "balances.js", "if (version <= known.version) return false;", ""),
        unnamed("balances.js", "headers.ce_previousversion === undefined", "true"),
        uncommitted("balances.js", "readUncommitted: false", "readUncommitted: true"),
    )

    def build(self):
        need("node", "Node.js 18 or later is needed")
        need("npm", "it comes with Node.js")
        run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=self.folder)

    def command(self, stage, state, until_end):
        return ["node", self.source / "balances.js", self.topic(stage), *until_end]


class Connect(Flink):
    """A worker in one process, which runs on for ever. What it has arrived at is in PostgreSQL, a table a type of event."""

    passes_garbage = True
    sink = "jdbc-sink.properties"
    faults = (
        uncommitted("worker.properties", "read_committed", "read_uncommitted"),
        Fault("with a row a record", "jdbc-sink.properties",
              "insert.mode=upsert\n# All headers that the transform below leaves.\nprimary.key.mode=record_header",
              "insert.mode=insert\nprimary.key.mode=none"),
    )
    schema = "connect"
    types = ("BankAccountOpened", "MoneyPaidIn", "MoneyWithdrawn", "TransferSent", "TransferReceived")

    def command(self, stage, schema, until_end):
        target = self.folder / "target"
        sink = stage.directory / f"{schema}.properties"
        text = (self.source / self.sink).read_text()
        sink.write_text(re.sub("^name=.*", f"name={stage.name}-{schema}", text, count=1, flags=re.MULTILINE))
        return ["java", *JAVA_OPTIONS, "-cp", f"{target}/classes:{target}/lib/*",
                "org.apache.kafka.connect.cli.ConnectStandalone", self.source / "worker.properties", sink]

    def environment(self, stage, schema=None, bounded=None):
        schema = schema or self.schema
        return super().environment(stage, schema) | {
            "ANNALS_TOPIC": self.topic(stage), "DATABASE_SCHEMA": schema, "CONNECT_PORT": str(free_port()), "CONNECT_OFFSETS": str(stage.directory / f"{schema}.offsets"),
            # The registry's own API, beside the Confluent one.
            "APICURIO_URL": stage.registry.replace("/apis/ccompat/v7", "/apis/registry/v2")}

    def start(self, stage, schema=None):
        schema = schema or self.schema
        log = open(stage.directory / f"{self.name}.log", "ab")
        # Where the plugins are.
        return spawn(self.command(stage, schema, []), env=self.environment(stage, schema), cwd=self.folder,
                     stdout=log, stderr=log)

    def interrupt(self, stage):
        stage.create_schema(self.schema)
        process = self.start(stage)
        try:
            until("a row is written", lambda: process.poll() is not None or self.found(stage, self.schema), Wrong)
        finally:
            process.kill()
        if process.wait() != -9:
            raise Wrong(f"it ended with {process.returncode} by itself; see {self.name}.log")

    def found(self, stage, schema):
        tables = dict(stage.rows(f"select tablename, true from pg_tables where schemaname = '{schema}'"))
        cents = lambda it: "0" if it == "BankAccountOpened" else "coalesce(sum(cents), 0)::bigint"
        counts = {it: list(stage.rows(f'select count(*), {cents(it)} from {schema}."{it}"')[0])
                  for it in self.types if it in tables}
        return {it: of for it, of in counts.items() if of[0] > 0}

    def finish(self, stage, totals):
        self.arrive(stage, totals, self.schema)

    def arrive(self, stage, totals, schema):
        process = self.start(stage, schema)
        try:
            is_done = lambda: process.poll() is not None or self.found(stage, schema) == totals["types"]
            until("Connect has the totals", is_done, lambda late: Wrong(f"{late}; it has {self.found(stage, schema)}"))
            # It stays there: nothing comes behind what was to come.
            until("Connect has read to the end", lambda: stage.is_read(f"connect-{stage.name}-{schema}", self.topic(stage)), Wrong)
            compare(totals, {"types": self.found(stage, schema)})
        finally:
            process.kill()
            process.wait()

    def run_to_end(self, stage, state):
        schema = "".join(it if it.isalnum() else "_" for it in state.name)
        stage.create_schema(schema)
        process = self.start(stage, schema)
        try:
            until("Connect has read to the end", lambda: stage.is_read(f"connect-{stage.name}-{schema}", self.topic(stage)), Wrong)
        finally:
            process.kill()
            process.wait()
        return {"types": self.found(stage, schema)}


class ConnectEnvelope(Connect):
    """The layout `envelope`: one table of all types."""

    sink, schema = "jdbc-sink-envelope.properties", "connect_envelope"
    faults = (
        Fault("with a row a stream", "jdbc-sink-envelope.properties", "ce_replayed,", "ce_replayed,ce_streamversion,"),
    )

    def prepare(self, stage):
        stage.published("envelope")

    def topic(self, stage):
        return stage.published("envelope")

    def found(self, stage, schema):
        columns = {column for column, in stage.rows(
            f"select column_name from information_schema.columns where table_schema = '{schema}' and table_name = 'account_events'")}
        found = {}
        for it in self.types:
            column = f"{it}_owner" if it == "BankAccountOpened" else f"{it}_cents"
            if column in columns:
                cents = "0" if it == "BankAccountOpened" else f'coalesce(sum("{column}"), 0)::bigint'
                found[it] = list(stage.rows(f'select count("{column}"), {cents} from {schema}.account_events')[0])
        return {it: of for it, of in found.items() if of[0] > 0}


class ClickHouse(Program):
    """ClickHouse in process: what the relay prints for it, and the values in its format. Its Kafka engine does not run there."""

    passes_garbage, finds_gaps, is_killed = False, False, False

    def build(self):
        packages = CONSUMERS / "check" / "clickhouse.txt"
        of = hashlib.sha256(packages.read_bytes()).hexdigest()[:12]
        environment = pathlib.Path(os.environ["ANNALS_CACHE"]) / f"consumers-clickhouse-{of}"
        self.python = environment / "bin" / "python"
        if (environment / "complete").exists():
            return
        shutil.rmtree(environment, ignore_errors=True)
        run([sys.executable, "-m", "venv", environment])
        try:
            run([self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
                 "--requirement", packages])
        except Wrong as wrong:
            raise Missing(f"chdb-core cannot be installed: {reason(wrong)}") from wrong
        (environment / "complete").touch()

    def finish(self, stage, totals):
        folder, ddl = stage.directory / "values", stage.directory / "clickhouse.sql"
        folder.mkdir()
        values = {dict(record.headers())["ce_id"]: record for record in stage.records(stage.topic)}
        files = {}
        for record in values.values():
            kind = dict(record.headers())["ce_type"].decode().rpartition(".")[2]
            for name in ("all", kind):
                files.setdefault(name, bytearray()).extend(record.value())
        for name, value in files.items():
            (folder / f"{name}.avro").write_bytes(value)
        ddl.write_text(stage.ask_relay("schemas", "export", "--clickhouse", "bank_account"))
        out = run([self.python, CONSUMERS / "check" / "clickhouse.py", ddl, folder, stage.registry])
        compare(totals, json.loads(out.strip().splitlines()[-1]))


UNFILTERED_PYTHON = Fault("without version filter", "read_model.py", "if version <= last_version:\n            return False",
                          "if version <= last_version:\n            return True")

UNFILTERED = Fault("without version filter", "events/src/main/java/annals/events/VersionFilter.java",
                   "return event.version() > last.version();", "return true;")

UNNAMED = unnamed("events/src/main/java/annals/events/Envelope.java", 'headers.lastHeader("ce_previousversion") != null', "false")

ONCE_MORE = Fault("without transactions", "streams/src/main/java/annals/StreamsBalances.java",
                  "StreamsConfig.EXACTLY_ONCE_V2", "StreamsConfig.AT_LEAST_ONCE")

TOOLS = [
    Python("python", "balances.py", uncommitted("balances.py"), UNFILTERED_PYTHON,
           unnamed("balances.py", 'headers.get("ce_previousversion")', "None")),
    Python("python-cloudevents", "balances_cloudevents.py", uncommitted("balances_cloudevents.py"), UNFILTERED_PYTHON,
           unnamed("balances_cloudevents.py", 'event.get_extension("previousversion")', "None")),
    PythonUnion("python-union", "balances.py"),
    Java("java", "consumer", "annals.Balances", uncommitted("consumer/src/main/java/annals/Balances.java"), UNFILTERED, UNNAMED),
    Streams("kafka-streams", "streams", "annals.StreamsBalances", UNFILTERED, ONCE_MORE),
    Java("spring", "spring", "annals.SpringBalances", uncommitted("spring/src/main/resources/application.yaml",
                                                                  "read-committed", "read-uncommitted"), UNFILTERED),
    Flink("flink", "flink"),
    Go("go", "go"),
    JavaScript("javascript", "javascript"),
    ClickHouse("clickhouse", "check"),
    Connect("connect", "connect"),
    ConnectEnvelope("connect-envelope", "connect"),
]
