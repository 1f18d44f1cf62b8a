"""Engines that write into PostgreSQL, or read by SQL: Flink, Kafka Connect, ClickHouse."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import urllib.parse

from pages import run_by
from program import CONSUMERS, JAVA_OPTIONS, Fault, Missing, Program, Wrong, compare, free_port, need, reason, run, spawn, uncommitted
from stage import until


class Flink(Program):
    """Runs on for ever. What it has arrived at is in PostgreSQL, and whether it restores a checkpoint is in what it says. The table
    of the topic is the one that the relay prints; in runs that end, as with a fault, the file's own one."""

    passes_garbage = False
    finds_gaps = False
    needs_control = True
    own_table = re.compile(r"^create table account_records \(.*?^\);\n", re.MULTILINE | re.DOTALL)
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
                self.source / "accounts.sql" if until_end else self.printed(stage), state]

    def printed(self, stage):
        """The statements with the table that the relay prints, and what the page puts on it."""
        file = stage.directory / "flink.sql"
        on_it, = run_by("flink", "flink")
        table = stage.ask_relay("schemas", "export", "--flink", "bank_account") + "\n" + on_it
        text, replaced = self.own_table.subn(lambda _: table, (self.source / "accounts.sql").read_text())
        if replaced != 1:
            raise Wrong("accounts.sql has no table account_records to replace")
        file.write_text(text)
        return file

    def environment(self, stage, schema="flink", bounded="unbounded"):
        url = urllib.parse.urlsplit(stage.database_url)
        return super().environment(stage) | {
            "ANNALS_TOPIC": self.topic(stage), "SCAN_BOUNDED_MODE": bounded,
            "JDBC_URL": f"jdbc:postgresql://{url.hostname}:{url.port}{url.path}?currentSchema={schema}",
            "DATABASE_USER": url.username, "DATABASE_PASSWORD": url.password}

    def interrupt(self, stage):
        self.first_windows = set(stage.totals()["windows"])
        stage.create_schema("flink", self.folder / "read_model.sql")
        process = self.start(stage, self.state(stage))
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
        process = self.start(stage, self.state(stage))
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
        run(self.command(stage, state, ["--until-end"]), env=self.environment(stage, schema, "latest-offset"), cwd=self.source)
        return self.found(stage, schema)


class Connect(Flink):
    """A worker in one process, which runs on for ever. What it has arrived at is in PostgreSQL, a table a type of event. The sink's
    settings are what the relay prints; with a fault, and in its control, the file's."""

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
        text = self.printed(stage) if schema == self.schema else (self.source / self.sink).read_text()
        sink.write_text(re.sub("^name=.*", f"name={stage.name}-{schema}", text, count=1, flags=re.MULTILINE))
        return ["java", *JAVA_OPTIONS, "-cp", f"{target}/classes:{target}/lib/*",
                "org.apache.kafka.connect.cli.ConnectStandalone", self.source / "worker.properties", sink]

    def printed(self, stage, deployment="consumers"):
        return stage.ask_relay("schemas", "export", "--connect", "bank_account", deployment=deployment)

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

    def printed(self, stage, deployment="envelope-prefix"):
        return super().printed(stage, deployment)

    def found(self, stage, schema):
        found, columns = {}, {column: table for table, column in stage.rows(
            f"select table_name, column_name from information_schema.columns where table_schema = '{schema}'")}
        for it in self.types:
            column = f"{it}_owner" if it == "BankAccountOpened" else f"{it}_cents"
            if column in columns:
                cents = "0" if it == "BankAccountOpened" else f'coalesce(sum("{column}"), 0)::bigint'
                found[it] = list(stage.rows(f'select count("{column}"), {cents} from {schema}.{columns[column]}')[0])
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
        (folder.parent / "page.sql").write_text("\n".join(run_by("clickhouse", "clickhouse")))
        out = run([self.python, CONSUMERS / "check" / "clickhouse.py", ddl, folder, stage.registry, folder.parent / "page.sql"])
        compare(totals, json.loads(out.strip().splitlines()[-1]))
