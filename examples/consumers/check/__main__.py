"""Runs the consumers of examples/consumers on topics that a real relay wrote, and compares their totals with the store's.

    python check [--list] [--all] [--no-faults] [TOOL...]

Then the pages of docs/consumers are followed, step by step: pages.py.

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

from pages import Pages, check_blocks
from program import Missing, Wrong
from stage import CHECKOUT, Stage
from tools import FOLLOWED, TOOLS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("tools", nargs="*", metavar="TOOL")
    arguments = parser.parse_args()
    if arguments.list:
        print(*[tool.name for tool in (*TOOLS, *FOLLOWED)], sep="\n")
        return
    chosen = [tool for tool in (*TOOLS, *FOLLOWED) if not arguments.tools or tool.name in arguments.tools]
    unknown = set(arguments.tools) - {tool.name for tool in chosen}
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}")
    try:
        check_blocks({tool.name for tool in TOOLS}, {"README"} | {page.page for page in FOLLOWED})
    except Wrong as wrong:
        sys.exit(f"the pages: {wrong}")
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
    run, with_faults = Run(failed, spent), not arguments.no_faults
    followed = [tool for tool in tools if tool in FOLLOWED]
    if programs_of := [tool for tool in tools if tool not in FOLLOWED]:
        run.on(Stage(programs, directory), lambda stage: check(stage, programs_of, run, with_faults))
    if followed:
        pages = Pages(programs, directory, {tool.name for tool in TOOLS})
        run.on(pages, lambda pages: follow(pages, followed, run, with_faults))
    print("seconds:", ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()))
    print(f"{run.passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(1 if failed else 0)


class Run:
    """What passed and what failed. A tool that failed takes no further step."""

    def __init__(self, failed, spent):
        self.passed, self.failed, self.spent = 0, failed, spent

    def on(self, place, action):
        """Removes what was made there, unless something failed."""
        before, is_kept = len(self.failed), True
        try:
            action(place)
            is_kept = len(self.failed) > before
        finally:
            place.end(is_kept)

    def step(self, tool, what, action):
        if tool in self.failed:
            return
        begun = time.monotonic()
        try:
            action()
            self.passed += 1
            say(tool.name, what, begun, self.spent)
        except Wrong as wrong:
            self.failed.append(tool)
            print(f"{tool.name}: FAILED: {what}: {wrong}", flush=True)


def follow(pages, followed, run, with_faults):
    begun = time.monotonic()
    try:
        pages.begin()
    except Wrong as wrong:
        run.failed += followed
        print(f"pages: FAILED: {wrong}", flush=True)
        return
    say("pages", "the topic of README.md is there", begun, run.spent)
    for page in followed:
        run.step(page, "its steps do what it says", lambda: page.follow(pages))
    for page in followed if with_faults else []:
        for fault in page.faults:
            run.step(page, f"is found wrong {fault.name}", lambda: page.fail(pages, fault))


def check(stage, tools, run, with_faults):
    step, spent = run.step, run.spent
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


def say(who, what, begun, spent):
    seconds = time.monotonic() - begun
    spent[who] += seconds
    print(f"{who}: {what} ({seconds:.1f} s)", flush=True)


main()
