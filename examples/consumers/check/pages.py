"""The pages of docs/consumers, word for word: the shell commands of each are executed in a fresh copy of the programs, and what
they print is compared with what the page says.

In a page, a block of `sh` is a step. A block of `text` behind it is what it prints: `...` stands for any text of a line, and a line
`...` for any lines. Comments of Markdown before a block say what else there is:

    <!-- until it prints this -->   the step is repeated until it prints the text below
    <!-- run by TOOL -->            the tool of the check runs the block, in place of the shell
    <!-- not run: REASON -->        nothing runs it
    <!-- no block is run: REASON -->  the same for all blocks of the page

Only addresses and the name `try` are replaced, by those of the check.
"""

import atexit
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
from confluent_kafka.admin import AdminClient

from program import Wrong, free_port, need
from stage import CHECKOUT, LIBRDKAFKA, committed_records

PAGES = pathlib.Path("docs", "consumers")
MADE = ("target", "node_modules", "venv", "__pycache__")
STEP_SECONDS_MAX = 300
REPEAT_SECONDS_MAX = 120
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- (until it prints this|run by|not run:) ?(.*) -->\n\Z")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What takes the most is the start of virtual machines.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx1g"


@dataclass
class Step:
    line: int
    text: str
    prints: str | None = None
    is_repeated: bool = False


def blocks(text):
    """The blocks of a page: line, language, content, and the comment before it."""
    for block in FENCE.finditer(text):
        comment = COMMENT.search(text, 0, block.start())
        yield text.count("\n", 0, block.start()) + 1, *block.groups(), *(comment.groups() if comment else (None, ""))


def run_by(tool, name):
    """The blocks of a page that a tool of the check runs."""
    text = (CHECKOUT / PAGES / f"{name}.md").read_text()
    return [content for _, _, content, mark, of in blocks(text) if (mark, of) == ("run by", tool)]


def steps(folder, name, tools):
    """What of a page is to be executed. Every block must be a step, the text of one, or say why it is not run."""
    text = (folder / PAGES / f"{name}.md").read_text()
    if re.search(r"^<!-- no block is run: \S.* -->$", text, re.MULTILINE):
        return []
    found, is_behind_step = [], False
    for line, language, content, mark, of in blocks(text):
        if mark in ("not run:", "run by"):
            if not of or (mark == "run by" and of not in tools):
                raise Wrong(f"{name}.md, line {line}: {mark} {of!r}: that is no reason, and no tool of the check")
            is_behind_step = False
        elif language == "sh":
            found.append(Step(line, content, is_repeated=mark is not None))
            is_behind_step = True
        elif language == "text" and is_behind_step:
            found[-1].prints = content
            is_behind_step = False
        else:
            raise Wrong(f"{name}.md, line {line}: a block of {language!r} is neither run nor says why not")
    if any(step.is_repeated and step.prints is None for step in found):
        raise Wrong(f"{name}.md repeats a step until it prints something, and does not say what")
    return found


def pattern(prints):
    """A regular expression for what a page says that a step prints."""
    def of(line):
        return r"(?:.*\n)*?" if line == "...\n" else r".*?".join(map(re.escape, line.split("...")))

    return re.compile("".join(map(of, prints.splitlines(keepends=True))))


def shortened(text):
    return text if len(text) < 1200 else f"{text[:600]} [...] {text[-600:]}"


class Shell:
    """A shell in which the steps of a page are executed one after the other, each with an output of its own."""

    def __init__(self, folder, environment, log):
        self.folder, self.log = folder, log
        self.process = subprocess.Popen(["bash"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=open(log, "ab"), text=True, start_new_session=True)
        atexit.register(self.end)
        self.process.stdin.write("set -euo pipefail\n")
        self.count = 0

    def execute(self, text):
        self.count += 1
        out = self.log.with_suffix(f".{self.count}.out")
        watch = threading.Timer(STEP_SECONDS_MAX, self.end)
        watch.start()
        try:
            self.process.stdin.write(f"{{\n{text}\n}} < /dev/null > {out}\necho done\n")
            self.process.stdin.flush()
            is_done = self.process.stdout.readline() == "done\n"
        finally:
            watch.cancel()
        said = COLOUR.sub("", out.read_text()) if out.exists() else ""
        if not is_done:
            raise Wrong(f"it ended with {self.process.wait()}; it printed:\n{said[-2000:]}\n{self.log.read_text()[-3000:]}")
        return said

    def end(self):
        """With all that it has started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Pages:
    """The topic that README.md of the pages makes, with a database and a copy of the programs; nothing else is in it."""

    def __init__(self, programs, directory, tools):
        self.programs, self.tools = programs, tools
        self.name = f"pages_{uuid.uuid4().hex[:8]}"
        self.folder = directory / self.name
        self.server = os.environ["ANNALS_DATABASE_URL"]
        self.database_url = f"{self.server.rpartition('/')[0]}/{self.name}"
        self.kafka = os.environ["ANNALS_KAFKA"]
        self.replaced = {
            "127.0.0.1:19092": self.kafka,
            "http://127.0.0.1:18081/apis/ccompat/v7": os.environ["ANNALS_REGISTRY_URL"],
            "127.0.0.1:18081": urlsplit(os.environ["ANNALS_REGISTRY_URL"]).netloc,
            "127.0.0.1:15432": urlsplit(self.server).netloc.rpartition("@")[2],
            "CONNECT_PORT=8083": f"CONNECT_PORT={free_port()}",
        }
        # Another relay of this machine may have the port that relays have by default.
        self.environment = os.environ | {"ANNALS_DATABASE_URL": self.database_url, "ANNALS_RELAY__HTTP__LISTEN": "127.0.0.1:0",
                                         "NO_COLOR": "1", "JDK_JAVA_OPTIONS": JAVA}
        self.copy_checkout(self.folder)
        (self.folder / "logs").mkdir()
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"create database {self.name}")
        self.shell = None

    def copy_checkout(self, folder):
        """What the steps need of a checkout, without anything that was built or installed in it."""
        for part in (PAGES, "examples/consumers", "schemas/avro"):
            shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns(*MADE))
        (folder / "ops").symlink_to(CHECKOUT / "ops")
        (folder / "target").mkdir()
        (folder / "target" / "debug").symlink_to(self.programs)

    def begin(self):
        """The topic of README.md. Its relay runs on until the end."""
        self.shell = self.follow("README")
        topic, deadline = f"{self.name}-bank_account", time.monotonic() + REPEAT_SECONDS_MAX
        with psycopg.connect(self.database_url) as connection:
            count, = connection.execute("select count(*) from annals.events").fetchone()
        # The pause that a reader makes before the next page.
        while sum(1 for record in committed_records(self.kafka, topic) if record.headers()) < count:
            if time.monotonic() > deadline:
                said = self.shell.log.read_text()
                raise Wrong(f"{count} events are not in {topic} within {REPEAT_SECONDS_MAX} s:\n{said[-2000:]}")
            time.sleep(0.05)

    def follow(self, name, folder=None):
        """Executes the steps of a page; returns the shell, in which something may still run."""
        folder = folder or self.folder
        shell = Shell(folder, self.environment, self.folder / "logs" / f"{folder.name}-{name}.log")
        try:
            for step in steps(folder, name, self.tools):
                self._follow(name, step, shell)
        except BaseException:
            shell.end()
            raise
        return shell

    def _follow(self, name, step, shell):
        where, deadline = f"{name}.md, line {step.line}", time.monotonic() + REPEAT_SECONDS_MAX
        wanted = step.prints and pattern(self.replace(step.prints))
        # A step that is repeated may fail at first.
        text = f"(\n{step.text}) || true" if step.is_repeated else step.text
        while True:
            try:
                said = shell.execute(self.replace(text))
            except Wrong as wrong:
                raise Wrong(f"{where}: {wrong}") from wrong
            if wanted is None or wanted.fullmatch(said):
                return
            if not step.is_repeated or time.monotonic() > deadline:
                raise Wrong(f"{where}: it prints\n{shortened(said)}\ninstead of\n{step.prints}")
            time.sleep(0.5)

    def replace(self, text):
        for of, by in self.replaced.items():
            text = text.replace(of, by)
        return re.sub(r"\btry(?=[-_.\"])", self.name, text)

    def end(self, is_kept):
        if self.shell:
            self.shell.end()
        if is_kept:
            print(f"kept: database {self.database_url}, topics {self.name}-*, logs in {self.folder}/logs")
            return
        admin = AdminClient(LIBRDKAFKA | {"bootstrap.servers": self.kafka})
        topics = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(self.name)]
        for deleted in admin.delete_topics(topics).values() if topics else ():
            deleted.result()
        with psycopg.connect(self.server, autocommit=True) as connection:
            made = connection.execute("select datname from pg_database where starts_with(datname, %s)", [self.name])
            for name, in made.fetchall():
                connection.execute(f"drop database {name} with (force)")
        shutil.rmtree(self.folder)


def check_blocks(tools, followed):
    """Of all pages: no block that is passed over in silence, and no step in a page that nobody follows."""
    for page in sorted((CHECKOUT / PAGES).glob("*.md")):
        if steps(CHECKOUT, page.stem, tools) and page.stem not in followed:
            raise Wrong(f"{page.stem}.md has steps, and the check does not follow it")


@dataclass(frozen=True)
class PageFault:
    """A change to what a page has or leads to, after which following it must fail, with `finds` in the reason."""
    name: str
    file: str
    old: str
    new: str
    finds: str


@dataclass(frozen=True)
class Page:
    """A page that is followed from an empty folder. `needs`: the programs that its steps ask for."""
    page: str
    needs: tuple = ()
    faults: tuple = ()

    @property
    def name(self):
        return f"page-{self.page}"

    def build(self):
        for program in self.needs:
            need(program, f"docs/consumers/{self.page}.md needs it")

    def follow(self, pages):
        pages.follow(self.page).end()

    def fail(self, pages, fault):
        """Follows a copy in which the fault is planted."""
        folder = pages.folder / f"{self.page} {fault.name}".replace(" ", "-")
        pages.copy_checkout(folder)
        file = folder / fault.file
        text = file.read_text()
        if fault.old not in text:
            raise Wrong(f"{fault.file} has no {fault.old!r} to plant the fault at")
        file.write_text(text.replace(fault.old, fault.new))
        try:
            pages.follow(self.page, folder).end()
        except Wrong as wrong:
            if fault.finds not in str(wrong):
                raise
            print(f"  {self.name}, {fault.name}: {fault.finds}", flush=True)
            return
        raise Wrong(f"the check did not see the fault {fault.name!r}")
