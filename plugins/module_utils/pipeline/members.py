# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The other servers of a service's cluster: asked, stopped, reseeded from the repository, put back, committed. Each on its own host.

A reseed is a restore of the member's data directory: staged beside, verified, swapped by rename, undone or committed by the same
steps and from the same kind of ledger, which lies in ``members/<host>`` of the state directory. Only its end is another one: a
standby is well when it streams and has replayed what the primary had.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from .. import lease
from ..errors import ConfigError, LifeboatError, SourceError, TargetError
from ..ledger import Ledger
from ..progress import Progress
from ..sources import cluster_members, cluster_places, cluster_roles, cluster_swap
from ..sources.cluster_standby import Standby
from ..sources.postgresql_client import Client
from ..sources.server import Server
from ..spec import Spec
from . import restore
from .inspect import Point, points
from .restore_job import Job
from .restore_live import cut_service

#: Snapshots that are tried, newest first.
_TRIED = 20


def member_spec(spec: Spec, member: str, primary: str = "") -> Spec:
    """The service as its member sees it; with a primary, as its standby. Raises ConfigError."""
    name = cluster_members.source_of(spec.entry)
    if not name:
        raise ConfigError("the service has no members", f"service {spec.service}", "declare them: members of its postgresql source")
    entry = cluster_members.entry_at(spec.entry, member)
    if primary:
        if primary == member:
            raise ConfigError("a server cannot be its own standby", f"{spec.service}: {member}", "name another member, or another primary")
        source = {**entry["sources"][name], "standby": cluster_members.way_between(spec.entry, primary, member)}
        entry = {**entry, "sources": {**entry["sources"], name: source}}
    return dataclasses.replace(spec, entry=entry, state_dir=os.path.join(spec.state_dir, "members", member))


def ask(spec: Spec, member: str) -> dict[str, Any]:
    """What this member is right now, as cluster_roles.ask(), with "host" and "source"; one that cannot be asked has no role, and "error" says why."""
    name = cluster_members.source_of(spec.entry)
    mine = member_spec(spec, member)
    _source, config = mine.source(name)
    about = {"changed": False, "host": member, "source": name}
    try:
        return {**about, **cluster_roles.ask(config, f"{spec.service}.{name} on {member}")}
    except LifeboatError as error:
        return {**about, "role": None, "error": error.what}


def stop(spec: Spec, run: dict[str, Any], member: str, check: bool) -> dict[str, Any]:
    """Stop a member's server, so that it neither takes writes nor follows anybody; {"changed"}."""
    mine = member_spec(spec, member)
    client, server, live = _server(mine, member)
    if cluster_places.postmaster(live) is None and not client.listening():
        return {"changed": False}
    if not check:
        ledger = Ledger.for_spec(mine)
        with lease.hold(mine, ledger, run, "stop"), server.lock():
            cluster_swap.halt(client, server, live)
            ledger.append(run, "stop", "member.stopped", {"member": member})
            lease.release(mine, ledger, run, "skipped")
    return {"changed": True}


def reseed(spec: Spec, run: dict[str, Any], member: str, primary: str, force: bool, check: bool, progress: Progress | None = None) -> dict[str, Any]:
    """Make a member a streaming standby of the primary, from the newest snapshot on the primary's way and what the member still has.

    {"changed", "snapshot", "bytes_reused", "bytes_fetched", "displaced_bytes", "proof": as cluster_roles.prove()}; one that streams already is left
    alone unless ``force``. Raises LifeboatError; the member is a standby then, or what it was before is under its displaced name.
    """
    mine = member_spec(spec, member, primary)
    name = mine.source_names[0]
    own = {key: value for key, value in run.items() if key != "target"}
    job = Job(mine, own, "preflight", progress)
    standby = _standby(job, name, {})
    if not check:
        _settle(job, standby, member)
    lacks = "forced" if force else standby.proves_well()
    if not lacks:
        return {"changed": False, "snapshot": None, "proof": standby.follows_again(), "warnings": []}
    point, problems = _fitting(job, name)
    snapshot = point.snapshots[name]
    told: dict[str, Any] = {"changed": True, "snapshot": snapshot.id, "because": lacks, "warnings": problems}
    if check:
        return told
    live = restore.go_live(mine, snapshot.id, own, True, progress)
    facts = (live["sources"].get(name) or {}).get("facts") or {}
    ledger = Ledger.for_spec(mine)
    try:
        proof = _standby(job, name, snapshot.data["facts"]).prove()
    except LifeboatError as error:
        restore.mark_verified(mine, own, "failed", str(error))
        raise
    ledger.append(own, "verdict", "member.streams", {"member": member, "primary": primary, "snapshot": snapshot.id, "proof": proof})
    restore.mark_verified(mine, own, "verified")
    kept = {key: facts[key] for key in ("bytes_reused", "bytes_fetched", "displaced_bytes") if key in facts}
    return {**told, **kept, "proof": proof, "warnings": [*problems, *live["warnings"]]}


def put_back(spec: Spec, run: dict[str, Any], member: str, primary: str, which: str, check: bool, progress: Progress | None = None) -> dict[str, Any]:
    """Put back what a member had before it was reseeded by a run, start it, and prove that it follows the primary again; {"changed", "proof"}.

    A member that the run did not come to is only started. Raises LifeboatError when it cannot follow: then it is to be reseeded.
    """
    mine = member_spec(spec, member, primary)
    name = mine.source_names[0]
    job = Job(mine, run, "rollback", progress)
    known = [one for one in job.restores() if which in one.runs and one.cut]
    if check:
        return {"changed": bool(known) and known[-1].undo != "done", "proof": None, "warnings": []}
    changed, warnings = False, []
    if known:
        told = restore.roll_back(mine, run, which, progress)
        changed, warnings = bool(told["changed"]), told["warnings"]
    else:
        changed = _start(mine, member)
    return {"changed": changed, "proof": _standby(job, name, {}).follows_again(), "warnings": warnings}


def commit(spec: Spec, run: dict[str, Any], member: str, which: str, check: bool, progress: Progress | None = None) -> dict[str, Any]:
    """Delete what a reseed displaced on a member; {"changed", "freed"}. A member that the run did not reseed has nothing."""
    mine = member_spec(spec, member)
    job = Job(mine, run, "commit", progress)
    if not any(which in one.runs and one.cut for one in job.restores()):
        return {"changed": False, "freed": 0, "warnings": []}
    told = restore.predict(mine, run, "commit", which) if check else restore.commit(mine, run, which, progress)
    return {"changed": told["changed"], "freed": told.get("freed", 0), "warnings": told["warnings"]}


def _settle(job: Job, standby: Standby, member: str) -> None:
    """End a reseed that was killed after its cutover, as it proves now. Open, it would be taken for the next one's work when the standby is lost again."""
    last = next(reversed(job.restores()), None)
    if last is None or not last.open or not last.sources or any(source.cutover != "done" for source in last.sources.values()):
        return
    with lease.hold(job.spec, job.ledger, job.run, "verdict"):
        job.log("restore.resumed", last.id, runs=last.runs)
        cut_service(job, last)
        verdict, message = "verified", ""
        try:
            if standby.down():
                raise SourceError("the standby is down", f"{job.spec.service} on {member}", "see its server log")
            standby.prove()
        except LifeboatError as error:
            verdict, message = "failed", error.what
        job.log("restore.verdict", last.id, verdict=verdict, message=message)
        lease.release(job.spec, job.ledger, job.run, verdict)


def _standby(job: Job, name: str, facts: dict[str, Any]) -> Standby:
    _source, context = job.source(name, digests=False)
    return Standby(context, facts)


def _start(mine: Spec, member: str) -> bool:
    client, server, live = _server(mine, member)
    if cluster_places.postmaster(live) is not None or not cluster_places.holds_cluster(live):
        return False
    with server.lock():
        cluster_swap.bring_up(client, server, live)
    return True


def _server(mine: Spec, member: str) -> tuple[Client, Server, str]:
    """How a member's server is reached and handled, and where its data lies."""
    name = mine.source_names[0]
    _source, config = mine.source(name)
    where = f"{mine.service}.{name} on {member}"
    client = Client({**config, "database": "template1"}, where)
    return client, Server(config, where, f"postgresql:{client.port}"), os.path.realpath(str(config["data_directory"]))


def _fitting(job: Job, name: str) -> tuple[Point, list[str]]:
    """The newest point whose snapshot lies on the primary's way; (it, why newer ones were left out)."""
    complete = [point for point in points(job.store.chains(), job.spec.service) if point.complete and name in point.snapshots]
    passed: list[str] = []
    for point in list(reversed(complete))[:_TRIED]:
        standby = _standby(job, name, point.snapshots[name].data["facts"])
        standby.look()
        reason = standby.fits()
        if not reason:
            return point, passed
        passed.append(f"snapshot {point.snapshots[name].id} was left out: {reason}")
    raise TargetError("no snapshot can become a standby of the primary" + (f": {passed[0]}" if passed else ": there is none"), f"service {job.spec.service}",
                      "take a snapshot of the primary (backup playbook), then run the same command again")


def set_state(spec: Spec, run: dict[str, Any], options: dict[str, Any], check: bool) -> dict[str, Any]:
    """What the module asks for. options: member, primary, state, force, rollback_run."""
    member, primary, state, which = (str(options.get(key) or "") for key in ("member", "primary", "state", "rollback_run"))
    if state == "asked":
        return ask(spec, member)
    if state == "stopped":
        return stop(spec, run, member, check)
    if state == "committed":
        return commit(spec, run, member, which, check)
    if not primary:
        raise ConfigError("a standby needs a primary", f"service {spec.service}, member {member}", "name the member that is the primary")
    if state == "returned":
        return put_back(spec, run, member, primary, which, check)
    return reseed(spec, run, member, primary, bool(options.get("force")), check)
