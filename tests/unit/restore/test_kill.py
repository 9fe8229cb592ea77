# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at every fault point that a restore, commit or rollback passes, every time it passes it; then the same command again.

Each try runs in a forked process, which SIGKILLs itself at the point. What is judged afterwards: the command ends in success, the
data is right, nothing was done twice (displaced, provisioned, swapped: once), nothing is left over, the ledger is whole.
The controls sabotage the state machine or the source, and the same judgement must fail.
"""

from __future__ import annotations

import collections
import os
import shutil
import signal
import sys
import traceback

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import durable, faults, lease, ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import Ledger
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations, restore, restore_live
from ansible_collections.lifeboat.recovery.tests.doubles.box_source import Box
from ansible_collections.lifeboat.recovery.tests.doubles.restore_world import new_run, renew


def in_child(work, plan="", trace=""):
    """Run it in a fork with a fault plan; "killed", "done" or "failed"."""
    new_run()  # the child counts on from here, and the next child must not use its run ids again
    new_run()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faults.configure(plan, trace)
            work()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return "killed"
    return "done" if os.WEXITSTATUS(status) == 0 else "failed"


def passed(world, prepare, work, trace):
    """Every (point, count) that the command passes."""
    prepare(world)
    open(trace, "w", encoding="utf-8").close()
    assert in_child(lambda: work(world), trace=str(trace)) == "done"
    hits = collections.Counter(trace.read_text().split())
    return [(name, number) for name, count in sorted(hits.items()) for number in range(1, count + 1)]


def sweep(pristine, tmp_path, prepare, work, judge, first_only=False):
    """Kill at every point; (points passed, those after which the judgement failed)."""
    world = renew(pristine)
    points = passed(world, prepare, work, tmp_path / "trace")
    bad = []
    for name, number in points:
        renew(pristine)
        prepare(world)
        first = in_child(lambda: work(world), f"{name}:{number}")
        # threads may pass a point in another order, or once less, when the killed one was ahead; a kill that did not come is a success
        again = in_child(lambda: work(world)) if first != "done" else "done"
        try:
            assert again == "done", f"the same command again: {again}"
            judge(world)
        except Exception as error:
            bad.append(f"{name}:{number} {type(error).__name__} {error}")
            if first_only:
                break
    return points, bad


# -- what is done, as its playbook does it: every call in the same process, a new run per command


def do_restore(world):
    world.restore()


def do_rollback(world):
    restore.roll_back(world.spec(), new_run("rollback"))


def do_commit(world):
    restore.commit(world.spec(), new_run("commit"))


def nothing(world):
    pass


def wrecked(world):
    shutil.rmtree(world.box.parent)


def restored(world):
    assert in_child(world.restore) == "done"


def whole(world):
    told = Ledger.for_spec(world.spec()).verify()
    assert told["torn_bytes"] == 0
    held = lease.read(world.spec())
    assert held is None or not held["alive"]


def once(world, *words):
    """The double tells of a deed after it: a kill in between hides it, but none may be told twice."""
    log = world.log()
    for word in words:
        assert log.count(word) <= 1, f"{word}: {log}"


def judge_restored(world):
    whole(world)
    assert world.read() == ("captured", "captured")
    once(world, "displaced", "swapped")
    assert len(world.leftovers()) == 2, world.leftovers()
    known = operations.known(world.spec())
    assert known["origin"]["point"] == world.point
    assert known["origin"]["verdict"] == "verified"
    # and what was displaced is still the original
    restore.roll_back(world.spec(), new_run("rollback"))
    assert world.read() == ("original", "original")


def judge_wrecked(world):
    whole(world)
    assert world.read() == ("captured", "captured")
    once(world, "provisioned", "swapped")
    restore.roll_back(world.spec(), new_run("rollback"))
    assert world.read() == (None, "original")


def judge_rolled_back(world):
    whole(world)
    assert world.read() == ("original", "original")
    once(world, "set aside", "put back")
    assert operations.known(world.spec())["origin"] is None
    restore.commit(world.spec(), new_run("commit"))
    assert world.leftovers() == []


def judge_committed(world):
    whole(world)
    assert world.read() == ("captured", "captured")
    assert world.leftovers() == []
    assert operations.known(world.spec())["uncommitted"] == []


COMMANDS = {
    "restore": (nothing, do_restore, judge_restored),
    "restore of a lost server": (wrecked, do_restore, judge_wrecked),
    "rollback": (restored, do_rollback, judge_rolled_back),
    "commit": (restored, do_commit, judge_committed),
}

#: Which points each command must pass at least once; the sweep kills at each of them.
EXPECTED = {
    "restore": {
        "restore.stage.begin", "restore.stage.provisioned", "restore.stage.filled", "restore.stage.verified", "restore.cutover.intent",
        "restore.cutover.displaced", "restore.cutover.swapped", "restore.cutover.done", "restore.verdict", "ledger.write.before",
        "ledger.write.after", "ledger.fsync.before", "ledger.fsync.after", "lease.rename.before", "lease.unlink.after",
        "stage.write.after", "stage.fsync.after", "stage.dirsync.after", "swap.rename.before", "swap.rename.after",
        "swap.dirsync.after", "origin.write.after", "origin.fsync.after", "origin.rename.after", "origin.dirsync.after",
    },
    "restore of a lost server": {"restore.stage.provisioned"},
    "rollback": {
        "rollback.intent", "rollback.displaced", "rollback.swapped", "rollback.done", "swap.rename.after", "origin.unlink.before", "origin.unlink.after",
    },
    "commit": {"commit.intent", "commit.source.done", "commit.done", "displaced.unlink.before", "displaced.unlink.after", "displaced.dirsync.after"},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_anywhere_the_same_command_again_ends_in_success(pristine, tmp_path, command):
    points, bad = sweep(pristine, tmp_path, *COMMANDS[command])
    assert EXPECTED[command] <= {name for name, _number in points}
    assert bad == []


def test_a_command_killed_again_and_again_gets_there(pristine):
    """Kill at the first, then at the second … entry of the ledger: every try gets a little further."""
    world = renew(pristine)
    outcome = ""
    for number in range(1, 40):
        outcome = in_child(world.restore, f"ledger.fsync.after:{number % 8 + 1}")
        if outcome == "done":
            break
    assert outcome == "done"
    judge_restored(world)


def sabotage(pristine, tmp_path, command):
    _points, bad = sweep(pristine, tmp_path, *COMMANDS[command], first_only=True)
    return bad


def test_control_a_source_that_trusts_its_eyes_is_caught(pristine, tmp_path, monkeypatch):
    """Control: the swap does not look whether the live data was displaced already."""

    def naive(self, context, record):
        if os.path.exists(record["live"]):
            durable.rename_durably(record["live"], record["displaced"], "swap")
            self._log(context, "displaced")
        durable.rename_durably(record["staged"], record["live"], "swap")
        self._log(context, "swapped")
        return {"displaced": True}

    monkeypatch.setattr(Box, "cutover", naive)
    assert sabotage(pristine, tmp_path, "restore")


def test_control_a_forgotten_ledger_is_caught(pristine, tmp_path, monkeypatch):
    """Control: the intent to swap is not recorded."""
    honest = Ledger.append

    def forgetful(self, run, phase, event, data=None):
        return {} if event in ("cutover.intent", "cutover.done") else honest(self, run, phase, event, data)

    monkeypatch.setattr(Ledger, "append", forgetful)
    assert sabotage(pristine, tmp_path, "restore")


def test_control_an_origin_that_is_not_written_is_caught(pristine, tmp_path, monkeypatch):
    monkeypatch.setattr(restore_live, "write_origin", lambda job, origin: None)
    assert sabotage(pristine, tmp_path, "commit") == []  # commit does not need it …
    assert sabotage(pristine, tmp_path, "restore")  # … restore does


def test_control_an_unrepaired_torn_tail_is_caught(pristine, tmp_path, monkeypatch):
    """Control: a writer that appends behind a torn tail instead of mending it."""
    world = renew(pristine)
    book = Ledger.for_spec(world.spec())
    with open(book.path, "ab") as handle:
        handle.write(b'{"seq": 99')
    monkeypatch.setattr(ledger.Ledger, "_repair", lambda self, descriptor, run: setattr(self, "_size", os.fstat(descriptor).st_size))
    assert in_child(lambda: (world.restore(), Ledger.for_spec(world.spec()).verify())) == "failed"


@pytest.mark.parametrize("point", ["migrate.intent", "migrate.done"])
def test_killed_beside_a_migration_it_is_run_once(pristine, point):
    world = renew(pristine)
    made = world.top / "made"
    spec = world.spec(entry={"runtime": {"migrate": [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('m')", str(made)]}})

    def work():
        run = new_run()
        restore.go_live(spec, "latest", run)
        restore.mark_verified(spec, run, "verified")

    assert in_child(work, point) == "killed"
    assert made.exists() is (point == "migrate.done")
    assert in_child(work) == "done"
    assert (made.read_text(), world.read()) == ("m", ("captured", "captured"))
    whole(world)


def test_killed_on_the_way_back_of_a_failed_restore_the_same_restore_again_ends_in_success(pristine, tmp_path):
    def work(world):
        run = new_run()
        restore.stage(world.spec(), "latest", run)
        if world.go_back:
            restore.go_live(world.spec(), "latest", run)
            restore.roll_back(world.spec(), run, run["id"])
            restore.mark_verified(world.spec(), run, "failed")
        else:
            restore.go_live(world.spec(), "latest", run)
            restore.mark_verified(world.spec(), run, "verified")

    world = renew(pristine)
    world.go_back = True
    points = [point for point in passed(world, nothing, work, tmp_path / "trace") if point[0].startswith("rollback")]
    assert len(points) >= 4
    for name, number in points:
        renew(pristine)
        world.go_back = True
        assert in_child(lambda: work(world), f"{name}:{number}") == "killed"
        world.go_back = False
        assert in_child(lambda: work(world)) == "done", name
        assert world.read() == ("captured", "captured"), name
        whole(world)
