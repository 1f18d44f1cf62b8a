"""What all programs of the check have in common: how they are run, killed, and asked for their totals; planted faults."""

import atexit
import itertools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass

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
    """A change to a program's source, after which its totals must differ. `is_killed`: the run is killed on its way, and started
    again; `finds`: what the reason must have in it, where it is not that events are wrong in any way."""
    name: str
    file: str
    old: str
    new: str
    is_killed: bool = False
    finds: str = ""


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
    # What `finish` runs is another run than that of the faults.
    needs_control = False
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
        self.kill_on_its_way(stage, self.state(stage))

    def kill_on_its_way(self, stage, state, commits=1):
        """SIGKILL as soon as something is applied, so many times."""
        process = self.start(stage, state)
        self.until_said(process, "applied", times=commits)
        process.kill()
        process.wait()

    def start(self, stage, state):
        log = open(stage.directory / f"{self.name}.log", "ab")
        return spawn(self.command(stage, state, []), env=self.environment(stage), cwd=self.source,
                     stdout=subprocess.PIPE, stderr=log, text=True)

    def until_said(self, process, *beginnings, times=1):
        """Reads what a program says up to a line that begins so; then, lines are read and dropped, so that it can go on."""
        said = (line for line in process.stdout if line.startswith(beginnings))
        if sum(1 for _ in itertools.islice(said, times)) < times:
            raise Wrong(f"it ended with {process.wait()} before it said {' or '.join(beginnings)!r}; see {self.name}.log")
        threading.Thread(target=process.stdout.read, daemon=True).start()

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

    def control(self, stage, totals):
        """The run of the faults, without one."""
        compare(totals, self.run_to_end(stage, self.state(stage, "-control.state")))

    def fail(self, stage, totals, fault):
        """Runs with the fault, from the beginning; right totals are the failure then, and so is an error of another kind."""
        copy = stage.directory / f"{self.name}-{fault.name.replace(' ', '-')}"
        shutil.copytree(self.folder, copy, symlinks=True, ignore=shutil.ignore_patterns("target"))
        text = (self.folder / fault.file).read_text()
        if fault.old not in text:
            raise Wrong(f"{fault.file} has no {fault.old!r} to plant the fault at")
        (copy / fault.file).write_text(text.replace(fault.old, fault.new))
        state = self.state(stage, f"-{fault.name.replace(' ', '-')}.state")
        self.source = copy
        try:
            self.build_fault(fault)
            if fault.is_killed:
                # Not at the first commit: a program that has just started has not much under way.
                self.kill_on_its_way(stage, state, commits=3)
            try:
                compare(totals, self.run_to_end(stage, state))
            except Wrong as wrong:
                if not (fault.finds in str(wrong) if fault.finds else is_marked(reason(wrong))):
                    raise
                print(f"  {self.name}, {fault.name}: {reason(wrong, fault.finds)[:160]}", flush=True)
                return
        finally:
            self.source = self.folder
        raise Wrong(f"the check did not see the fault {fault.name!r}")


def reason(wrong, finds=""):
    """The line of what a program says that tells why it ended; a stack of calls is around it."""
    lines = str(wrong).strip().splitlines()
    tells = (lambda line: finds in line) if finds else is_marked
    return next((line for line in reversed(lines) if tells(line)), lines[-1]).strip()


def compare(expected, found):
    if not found:
        raise Wrong("it has no totals")
    for what, values in found.items():
        wanted = expected[what]
        if not isinstance(wanted, dict) and wanted != values:
            raise Wrong(f"{what} differ: {values - wanted:+} to {wanted}")
        if wanted != values:
            different = sorted(key for key in wanted.keys() | values.keys() if wanted.get(key) != values.get(key))
            some = ", ".join(f"{key}: {values.get(key)} instead of {wanted.get(key)}" for key in different[:3])
            raise Wrong(f"{len(different)} of {len(wanted)} {what} differ: {some}")
