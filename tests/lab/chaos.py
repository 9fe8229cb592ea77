# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at moments of a restore over several hosts, and what must be true after each.

    with Lab() as lab, ChaosFleet(lab, HOSTS, …) as fleet:
        fleet.bootstrap(); fleet.backup()
        Walk(fleet).round(seed)           # AssertionError with what the seed chose, and with the output of the run, when something is not true

A round gives every service another content (``former``), begins a restore, strikes at a moment that the run's own marks tell, and then does
what an operator would: the very command that the run has told, again until it succeeds, or a rollback on demand. The seed chooses everything.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

import yaml

from ..ecosystem.fleet.fleet import Fleet, Playing
from . import harbour, host_disk
from .harbour import Outcome

#: What a point is passed for in a restore or a rollback.
SUBJECTS = ("stage", "swap", "origin", "ledger", "lease", "restore", "rollback")
#: Moments of a verb: (phase, event). Any service may come to any of them first.
MOMENTS = {
    "restore": [("preflight", "start"), ("stage", "start"), ("stage", "end"), ("island", "start"), ("stop", "start"), ("gate", "start"), ("cutover", "start"),
                ("start", "start"), ("health", "start"), ("invariants", "start"), ("protect", "start")],
    "rollback": [("stop", "start"), ("gate", "start"), ("rollback", "start"), ("start", "start"), ("health", "start")],
}
#: How often the same command may be needed when nothing disturbs it any more.
ATTEMPTS = 3
#: Rounds after which the disks would be full of what is kept for a rollback.
KEPT = 4
LIMIT = 600
STATE = "/var/lib/lifeboat"
DATA = "/srv/fleet"

#: What runs the modules on a host: a fault is planned by a file there.
WRAPPER = f"""#!/bin/sh
if [ -e /run/fault ]; then
    LIFEBOAT_FAULT=$(cat /run/fault) LIFEBOAT_FAULT_TRACE=/run/fault.trace exec {host_disk.python()} "$@"
fi
exec {host_disk.python()} "$@"
"""
INTERPRETER = "/usr/local/bin/chaos-python"


class ChaosFleet(Fleet):
    """A fleet whose hosts pass fault points, and have disks of their own that can be full."""

    def __enter__(self) -> ChaosFleet:
        for name in self.hosts:
            self.lab.disk(name, DATA, 700)
            self.lab.disk(name, STATE, 48)
        super().__enter__()
        return self

    def write(self) -> None:
        super().write()
        path = self.inventory / "hosts.yml"
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        document["all"]["vars"]["ansible_python_interpreter"] = INTERPRETER
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        for name in self.hosts:
            there = self.lab.host(name).path(INTERPRETER)
            there.write_text(WRAPPER, encoding="ascii")
            there.chmod(0o755)

    def plan_fault(self, host: str, plan: str) -> None:
        self.lab.host(host).path("/run/fault").write_text(plan, encoding="ascii")

    def fault_hit(self, host: str, name: str) -> bool:
        """Whether the planned point was passed; the plan is over then."""
        trace = self.lab.host(host).path("/run/fault.trace")
        with contextlib.suppress(OSError):
            if name in trace.read_text(encoding="ascii").split():
                self.clear_fault(host)
                return True
        return False

    def clear_fault(self, host: str) -> None:
        for name in ("/run/fault", "/run/fault.trace"):
            self.lab.host(host).path(name).unlink(missing_ok=True)


class Strike:
    """One fault: what it is, whom it hits, when, and how it is undone."""

    def __init__(self, fleet: ChaosFleet, dice: random.Random, verb: str, kinds: tuple[str, ...] = ()) -> None:
        self.fleet, self.lab = fleet, fleet.lab
        self.kind = dice.choice(kinds or ("controller", "power", "cut", "hang", "disk", "point", "point"))
        self.host = dice.choice(fleet.hosts)
        service = dice.choice([None, *fleet.members])
        phase, event = dice.choice(MOMENTS[verb])
        self.moment: tuple[Optional[str], str, str] = (service, phase, event)
        self.place = dice.choice((DATA, DATA, STATE))
        points = [name for name in fault_points() if name.partition(".")[0] in SUBJECTS and (verb == "rollback") == name.startswith("rollback")]
        self.plan = dice.choice(points) + f":{dice.randint(1, 2)}:" + dice.choice(("kill", "kill", "error", "full"))
        #: A machine that is up again at once, a cable that is in again while the run goes on.
        self.brief = self.kind in ("power", "cut") and dice.random() < 0.3
        self.hit = False

    def __str__(self) -> str:
        when = " ".join(word for word in self.moment if word)
        return {"controller": f"controller killed at {when}", "disk": f"{self.host}:{self.place} full from {when}",
                "point": f"{self.plan} on {self.host}"}.get(self.kind, f"{self.host} {self.kind} at {when}{', briefly' if self.brief else ''}")

    def _due(self, going: Playing) -> bool:
        service, phase, event = self.moment
        return any((mark["phase"], mark["event"]) == (phase, event) and service in (None, mark["service"]) for mark in going.marks())

    def run(self, going: Playing) -> Optional[Outcome]:
        """See the verb through with the fault in it; None when there is no controller any more to tell how it went."""
        try:
            if self.kind == "point":
                self.fleet.plan_fault(self.host, self.plan)
            self._watch(going, self._point if self.kind == "point" else lambda: self._due(going))
            if self.hit and self.kind == "controller":
                going.kill()
                return None
            if self.hit and self.kind != "point":
                self._strike()
            return going.wait()
        except BaseException:
            going.kill()
            raise
        finally:
            self._undo()

    def _watch(self, going: Playing, come: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT
        while not self.hit and going.process.poll() is None:
            assert time.monotonic() < deadline, f"{self}: the run hangs\n{going.text()}"
            self.hit = come()
            time.sleep(0.02)

    def _point(self) -> bool:
        return self.fleet.fault_hit(self.host, self.plan.partition(":")[0])

    def _strike(self) -> None:
        if self.kind == "power":
            self.lab.kill(self.host)
        elif self.kind == "cut":
            self.lab.cut(self.host)
        elif self.kind == "hang":
            self.lab.hang(self.host)
        elif self.kind == "disk":
            self.lab.fill(self.host, self.place)
        if self.brief:
            self._undo()

    def _undo(self) -> None:
        if self.kind == "power":
            self.lab.up(self.host)
            self.fleet.serve(self.host)  # as the machine itself does when it boots
        elif self.kind == "cut":
            self.lab.heal(self.host)
        elif self.kind == "hang":
            self.lab.resume(self.host)
        elif self.kind == "disk":
            self.lab.empty(self.host, self.place)
            self.fleet.serve(self.host)  # a server that a full disk has ended is started again by what supervises it
        elif self.kind == "point":
            self.fleet.clear_fault(self.host)


class Walk:
    """Rounds over one fleet."""

    def __init__(self, fleet: ChaosFleet) -> None:
        self.fleet = fleet
        self.captured = fleet.content()
        self.data = [name for name in fleet.members if fleet.catalog["services"][name]["sources"]]
        self.told: list[str] = []
        self.kept = 0

    def round(self, seed: int) -> str:
        """One round; what was done, in one line. Everything is captured or former at the end, and well."""
        dice = random.Random(seed)
        self.told = [f"seed {seed}:"]
        try:
            self._round(seed, dice)
        except AssertionError as error:
            raise AssertionError(f"{' '.join(self.told)}\n{error}") from error
        return " ".join(self.told)

    def _round(self, seed: int, dice: random.Random) -> None:
        self.fleet.alter(f"round {seed}")
        former, before = self.fleet.content(), self._ledgers()
        strike = Strike(self.fleet, dice, "restore")
        back = dice.random() < 0.35
        self.told.append(str(strike))
        outcome = strike.run(self.fleet.begin("restore"))
        self._tell(strike, outcome)
        self._honest(outcome, self.captured, "restore", {strike.host} if strike.kind == "power" else set())
        if back and self._cut(before):
            self.told.append("then back:")
            self._back(dice, outcome, former, before)
        else:
            self._forward(strike, outcome, before)
        wished = dice.random() < 0.25
        if self._cut(before):
            self.kept += 1
            if wished or self.kept == KEPT:
                self._commit()

    def _commit(self) -> None:
        """Make all final that is not: the disks hold no more."""
        ledgers = [self.fleet.ledger(name) for name in self.data]
        kept, gone = ({str(entry["data"]["restore"]) for ledger in ledgers for entry in ledger if entry["event"] == event}
                      for event in ("cutover.done", "commit.done"))
        for run in sorted(kept - gone):
            committed = self.fleet.play("commit", "-e", f"lifeboat_run={run}")
            assert committed.code == 0, f"the commit of {run} ended with {committed.code}\n{committed.text}"
        self.kept = 0

    def _tell(self, strike: Strike, outcome: Optional[Outcome]) -> None:
        verdicts = sorted(outcome.verdicts().values()) if outcome else []
        self.told.append(f"[{'hit' if strike.hit else 'missed'}, {outcome.code if outcome else 'killed'}"
                         + "".join(f", {verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)) + "]")

    def _again(self, verb: str, outcome: Optional[Outcome], *arguments: str) -> Outcome:
        """What an operator does next: the command on the first screen, or, where nobody could tell one, the same command again."""
        word = {"restore": "go on with:", "rollback": "go on with:"}[verb]
        if outcome is not None and outcome.code != 0 and outcome.document:
            command = next(line for line in outcome.lines() if word in line).partition(word)[2]
            return self.fleet.command(shlex.split(command)[1:]).wait()
        return self.fleet.play(verb, *arguments)

    def _forward(self, strike: Strike, outcome: Optional[Outcome], before: Mapping[str, Any]) -> None:
        """The same command until it ends well. A machine that lost its power has lost its services too, whatever the run saw of them before."""
        count = 0
        while outcome is None or outcome.code != 0 or strike.kind == "power" and count == 0:
            assert count < ATTEMPTS, f"the same command {count} times, and it still fails:\n{outcome.text if outcome else ''}"
            outcome = self._again("restore", outcome)
            self._honest(outcome, self.captured, "restore")
            count += 1
        self.told.append(f"verified after {count}")
        assert outcome.verdicts() == dict.fromkeys(self.fleet.members, "verified"), outcome.text
        self._all(self.captured, outcome)
        for name, (cut, undone) in self._new(before).items():
            assert sorted(cut) == sorted(self.fleet.catalog["services"][name]["sources"]) and not undone, f"{name} was cut over {cut}, undone {undone}"

    def _back(self, dice: random.Random, outcome: Optional[Outcome], former: Mapping[str, str], before: Mapping[str, Any]) -> None:
        """A rollback on demand, struck itself, then the same until it ends well."""
        told = next((line.partition("or undo it:")[2] for line in outcome.lines() if "or undo it:" in line), "") if outcome else ""
        begin: Callable[[], Playing] = (lambda: self.fleet.command(shlex.split(told)[1:])) if told else lambda: self.fleet.begin("rollback")
        strike = Strike(self.fleet, dice, "rollback", ("controller", "controller", "power", "cut", "hang", "point"))
        self.told.append(str(strike))
        undone: Optional[Outcome] = strike.run(begin())
        self._tell(strike, undone)
        self._honest(undone, former, "rollback", {strike.host} if strike.kind == "power" else set())
        count = 0
        while undone is None or undone.code != 0 or strike.kind == "power" and count == 0:
            assert count < ATTEMPTS, f"the same rollback {count} times, and it still fails:\n{undone.text if undone else ''}"
            undone = self._again("rollback", undone) if undone is not None and undone.code != 0 else begin().wait()
            self._honest(undone, former, "rollback")
            count += 1
        self.told.append(f"rolled back after {count + 1}")
        assert set(undone.verdicts().values()) == {"rolled_back"}, undone.text
        self._all(former, undone)
        for name, (cut, back) in self._new(before).items():
            assert sorted(cut) == sorted(set(cut)) == sorted(back), f"{name} was cut over {cut}, undone {back}"

    # -- what must be true -----------------------------------------------------------------------------------------------

    def _ledgers(self) -> dict[str, tuple[int, int]]:
        return {name: (len(self.fleet.cutovers(name)), len(self.fleet.cutovers(name, "rollback.source.done"))) for name in self.data}

    def _new(self, before: Mapping[str, Any]) -> dict[str, tuple[list[str], list[str]]]:
        """service -> (sources cut over, sources put back) in this round."""
        return {name: (self.fleet.cutovers(name)[before[name][0]:], self.fleet.cutovers(name, "rollback.source.done")[before[name][1]:]) for name in self.data}

    def _cut(self, before: Mapping[str, Any]) -> bool:
        return any(cut for cut, _undone in self._new(before).values())

    def _all(self, wanted: Mapping[str, str], outcome: Outcome) -> None:
        found = self.fleet.content()
        assert found == wanted, f"content: {harbour.differences(dict(wanted), found)}\n{outcome.text}"
        down = [name for name in self.fleet.members if not self.fleet.usable(name)]
        assert not down, f"{down} do not answer\n{outcome.text}"

    def _honest(self, outcome: Optional[Outcome], wanted: Mapping[str, str], verb: str, lost: set[str] | frozenset[str] = frozenset()) -> None:
        """No false success: a good verdict only where content and health are as they should be (on a host that lost its power they were);
        and whoever reads the last screen knows why, what is blocked, and what to do."""
        if outcome is None:
            return
        good = {"restore": "verified", "rollback": "rolled_back"}[verb]
        verdicts = outcome.verdicts()
        well = [name for name, verdict in verdicts.items() if verdict == good]
        found = self.fleet.content(*well) if well else {}
        wrong = harbour.differences({name: wanted[name] for name in well}, found)
        assert not wrong, f"said to be {good}, and is not what it should be: {wrong}\n{outcome.text}"
        down = [name for name in well if not (self.fleet.member(name).host in lost or self.fleet.usable(name))]
        assert not down, f"said to be {good}, and does not answer: {down}\n{outcome.text}"
        assert (outcome.code == 0) == (bool(verdicts) and len(well) == len(verdicts)), f"ended with {outcome.code}: {verdicts}\n{outcome.text}"
        if outcome.code == 0 or not outcome.document:
            return
        assert outcome.document["exit"]["code"] == outcome.code, outcome.text
        screen = "\n".join(outcome.lines()[-harbour.SCREEN:])
        failed = [name for name, verdict in verdicts.items() if verdict in ("failed", "interrupted")]
        assert "root cause:" in screen and "go on with:" in screen, f"the first screen:\n{screen}\n{outcome.text}"
        blamed = {name for names in re.findall(r"root cause:  ((?:[\w-]+, )*[\w-]+) ", screen) for name in names.split(", ")}
        assert blamed & set(failed), f"the first screen names none of {failed}:\n{outcome.text}"
        for name in (name for name, verdict in verdicts.items() if verdict == "blocked"):
            assert any(name in line for line in screen.splitlines() if "blocks:" in line), f"the first screen does not say what blocks {name}\n{outcome.text}"


def fault_points() -> list[str]:
    from ansible_collections.lifeboat.recovery.plugins.module_utils import faults

    return faults.points()


def seeds() -> Iterator[int]:
    """Those of CHAOS_SEED (first one, 1 by default) and CHAOS_ROUNDS (how many, 100 by default)."""
    first = int(os.environ.get("CHAOS_SEED", "1"))
    yield from range(first, first + int(os.environ.get("CHAOS_ROUNDS", "100")))
