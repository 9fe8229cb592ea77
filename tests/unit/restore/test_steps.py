# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service says about its steps: migrations between cutover and start, the schema version, retries, time limits, the way back."""

from __future__ import annotations

import pathlib
import sys

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import policy
from ansible_collections.lifeboat.recovery.plugins.module_utils.checks import sql
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import CheckError, DamageError, LimitError, SourceError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore
from ansible_collections.lifeboat.recovery.tests.doubles.box_source import Box
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import new_run

COUNT = "import sys; open(sys.argv[1], 'a').write('m')"
BREAK = "import sys; open(sys.argv[1], 'a').write('m'); sys.exit('column exists')"


def events(world, word):
    return [entry["data"] for entry in Ledger.for_spec(world.spec()).entries() if entry["event"] == word]


def spec(world, **entry):
    return world.spec(entry=entry)


@pytest.fixture
def unhurried(monkeypatch):
    """Retries without the pauses, which are returned."""
    pauses = []
    kept = policy.attempts
    monkeypatch.setattr(policy, "attempts", lambda step, service, work, note, sleep=None: kept(step, service, work, note, pauses.append))
    return pauses


def runs(world):
    made = world.top / "made"
    return len(made.read_text()) if made.exists() else 0


def test_a_migration_runs_when_the_data_is_live_and_a_resumed_restore_does_not_run_it_again(world):
    migrating = spec(world, runtime={"migrate": [sys.executable, "-c", COUNT, str(world.top / "made")]})
    run = new_run(pid=2 ** 30, pid_started="1")  # its controller is dead
    restore.stage(migrating, "latest", run)
    assert runs(world) == 0
    told = restore.go_live(migrating, "latest", run)
    assert (told["migrated"], told["changed"], runs(world), world.read()[0]) == (True, True, 1, "captured")
    again = restore.go_live(migrating, "latest", run)
    assert (again["migrated"], again["changed"]) == (False, False)
    resumed = restore.go_live(migrating, "latest", new_run())
    assert (resumed["migrated"], runs(world)) == (False, 1)
    order = [entry["event"] for entry in Ledger.for_spec(world.spec()).entries()]
    assert order.index("restore.live") < order.index("migrate.intent") < order.index("migrate.done")


def test_a_migration_that_fails_is_run_again_by_the_same_command(world):
    run = new_run()
    with pytest.raises(SourceError, match=r"the migration ended with exit status 1 .*column exists.*orders: .*the service was not started") as caught:
        restore.go_live(spec(world, runtime={"migrate": [sys.executable, "-c", BREAK, str(world.top / "made")]}), "latest", run)
    assert caught.value.result["readied"] >= 0, "so that the run knows in which step it failed"
    restore.mark_verified(world.spec(), run, "failed")
    mended = spec(world, runtime={"migrate": [sys.executable, "-c", COUNT, str(world.top / "made")]})
    assert restore.go_live(mended, "latest", new_run())["migrated"]
    assert (runs(world), len(events(world, "migrate.done"))) == (2, 1)
    assert world.log().count("swapped") == 1


def test_a_migration_that_hangs_is_ended(world):
    slow = spec(world, runtime={"migrate": [sys.executable, "-c", "import time; time.sleep(600)"]}, policy={"migrate": {"timeout": "300ms"}})
    with pytest.raises(SourceError, match="the migration did not end within 0.3 s"):
        restore.go_live(slow, "latest", new_run())


def test_data_of_another_version_is_not_started_over(world, monkeypatch):
    monkeypatch.setitem(sql.ADAPTERS, "box", lambda config, asked, timeout: pathlib.Path(config["path"]).read_text())
    wanted = {"schema": [{"query": "select version", "expect": "v2", "source": "box"}]}
    run = new_run()
    with pytest.raises(CheckError, match=r"the version is 'captured', the service wants 'v2'.*run the migrations"):
        restore.go_live(spec(world, **wanted), "latest", run)
    assert not restore.healthy_now(spec(world, **wanted))
    (world.top / "v2").write_text("v2")
    mended = spec(world, **wanted, runtime={"migrate": ["/bin/cp", str(world.top / "v2"), str(world.box)]})
    told = restore.go_live(mended, "latest", run)
    assert told["migrated"] and told["schema"][0]["ok"]
    assert operations.check(mended, "all", 0)["ok"]


def test_what_passes_by_itself_is_tried_again_and_noted(world, monkeypatch, unhurried):
    left = [3]
    real = Box.stage

    def sometimes(self, context, reader, record):
        if left[0]:
            left[0] -= 1
            raise SourceError("the server does not answer", "box", "wait").passing()
        real(self, context, reader, record)

    monkeypatch.setattr(Box, "stage", sometimes)
    patient = spec(world, policy={"stage": {"retries": 2, "backoff": 4}})
    run = new_run()
    with pytest.raises(SourceError):
        restore.stage(patient, "latest", run)
    noted = events(world, "step.retried")
    assert [(note["step"], note["tries"], note["error"]["what"]) for note in noted] == [("stage", n, "the server does not answer") for n in (1, 2)]
    assert 2 <= unhurried[0] <= 4 <= unhurried[1] <= 8, "twice as long, spread by chance"
    left[0] = 2
    assert restore.stage(patient, "latest", run)["changed"]


@pytest.mark.parametrize("error", [DamageError("altered", "pack", ""), CheckError("broken", "rule", ""), SourceError("refused", "box", "")])
def test_what_does_not_pass_is_told_at_once(world, monkeypatch, unhurried, error):
    def fail(self, context, reader, record):
        raise error

    monkeypatch.setattr(Box, "stage", fail)
    with pytest.raises(type(error)):
        restore.stage(spec(world, policy={"stage": {"retries": 5}}), "latest", new_run())
    assert unhurried == []


def test_a_step_ends_when_its_time_is_over_and_leaves_nothing(world, monkeypatch):
    cleaned = []
    real = Box.discard

    def endless(self, context, reader, record):
        while True:
            context.progress.add(1)

    def discard(self, context, record):
        context.progress.say("clearing up")  # is not cut short itself
        cleaned.append(record["staged"])
        real(self, context, record)

    monkeypatch.setattr(Box, "stage", endless)
    monkeypatch.setattr(Box, "discard", discard)
    run = new_run()
    with pytest.raises(LimitError, match=r"the step stage did not end within 0.2 s: orders; .*policy.stage.timeout"):
        restore.stage(spec(world, policy={"stage": {"timeout": "200ms", "retries": 3}}), "latest", run)
    assert (len(cleaned), world.read()) == (1, ("original", "original"))
    monkeypatch.undo()
    restore.mark_verified(world.spec(), run, "failed")
    assert world.restore()["changed"]


def test_back_in_the_same_run_and_the_next_restore_begins_anew(world):
    run = new_run()
    restore.stage(world.spec(), "latest", run)
    restore.go_live(world.spec(), "latest", run)
    assert restore.roll_back(world.spec(), run, run["id"])["changed"]
    assert world.read() == ("original", "original")
    told = restore.mark_verified(world.spec(), run, "failed", "not healthy")
    known = operations.known(world.spec())
    assert (told["verdict"], known["lease"], known["unfinished"], known["origin"]) == ("failed", None, None, None)
    assert world.restore()["changed"]
    assert world.read() == ("captured", "captured")
