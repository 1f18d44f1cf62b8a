"""Runs the consumers of examples/consumers on topics that a real relay wrote, and compares their totals with the store's.

    python check [--list] [--all] [--no-faults] [TOOL...]

Each program is killed with SIGKILL on its way through the first round of events, started again behind the second one, and must
arrive at what SQL says of `annals.events`. Where an event is lost, it must end. Then each is run with a fault planted into its
source, and must not arrive there. A tool that the machine lacks is skipped; with `--all` it is a failure.
"""

import argparse
import os
import pathlib
import signal
import sys
import time
from collections import Counter

from program import Missing, Wrong
from stage import CHECKOUT, Stage
from tools import TOOLS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("tools", nargs="*", metavar="TOOL")
    arguments = parser.parse_args()
    if arguments.list:
        print(*[tool.name for tool in TOOLS], sep="\n")
        return
    chosen = [tool for tool in TOOLS if not arguments.tools or tool.name in arguments.tools]
    unknown = set(arguments.tools) - {tool.name for tool in TOOLS}
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}")
    programs = pathlib.Path(os.environ["ANNALS_PROGRAMS"])
    directory = CHECKOUT / "target" / "consumers"
    tools, skipped, failed, spent = [], [], [], Counter()
    for tool in chosen:
        begun = time.monotonic()
        try:
            tool.build()
            tools.append(tool)
            say(tool.name, "is built", begun, spent)
        except Missing as reason:
            skipped.append(tool)
            print(f"{tool.name}: skipped: {reason}", flush=True)
    if arguments.all and skipped:
        sys.exit(f"missing: {', '.join(tool.name for tool in skipped)}")
    if not tools:
        print(f"0 passed, 0 failed, {len(skipped)} skipped")
        return
    # An orderly end of whatever was started, also then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage, is_kept = Stage(programs, directory), True
    try:
        checked = check(stage, tools, failed, spent, with_faults=not arguments.no_faults)
        is_kept = bool(failed)
    finally:
        stage.end(is_kept)
    print("seconds:", ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()))
    print(f"{checked} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(1 if failed else 0)


def check(stage, tools, failed, spent, with_faults):
    passed = 0

    def step(tool, what, action):
        nonlocal passed
        if tool in failed:
            return
        begun = time.monotonic()
        try:
            action()
            passed += 1
            say(tool.name, what, begun, spent)
        except Wrong as wrong:
            failed.append(tool)
            print(f"{tool.name}: FAILED: {what}: {wrong}", flush=True)

    begun = time.monotonic()
    for tool in tools:
        tool.prepare(stage)
    stage.round(1)
    stage.add_noise()
    say("stage", "first round is published, the relay was killed on the way", begun, spent)
    for tool in tools:
        if tool.is_killed:
            step(tool, "is killed on its way", lambda: tool.interrupt(stage))
    begun = time.monotonic()
    stage.round(2, removes=True)
    say("stage", "second round is published, the relay was killed on the way, and events were removed before it read them", begun, spent)
    totals = stage.totals()
    for tool in tools:
        step(tool, "has the store's totals", lambda: tool.finish(stage, totals))
    for tool in tools:
        if tool.finds_gaps:
            step(tool, "ends where an event is lost", lambda: tool.stop_at_gap(stage))
    for tool in tools if with_faults else []:
        if tool.needs_control:
            step(tool, "has the totals in the run of the faults, without one", lambda: tool.control(stage, totals))
        for fault in tool.faults:
            step(tool, f"is found wrong {fault.name}", lambda: tool.fail(stage, totals, fault))
    stage.add_garbage()
    stage.round(3, appends=200)
    totals = stage.totals()
    for tool in tools:
        if tool.passes_garbage:
            step(tool, "passes a record that is no event", lambda: tool.finish(stage, totals))
    return passed


def say(who, what, begun, spent):
    seconds = time.monotonic() - begun
    spent[who] += seconds
    print(f"{who}: {what} ({seconds:.1f} s)", flush=True)


main()
