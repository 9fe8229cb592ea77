# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Preflight of a restore: is this the host and the data that is meant, is there room for the copies, and do the clocks agree?

What a host knows of itself is judged here; what only shows over several services (one disk, one directory, one clock for all of
them) is told in the answer and judged on the controller.
"""

from __future__ import annotations

import os
from typing import Any, Callable

from .. import clocks, identity, room, state
from ..errors import LifeboatError, TargetError
from ..sources.contract import Footprint
from .inspect import Point, read_marks
from .preflight_host import Found
from .restore_job import Job
from .restore_state import held_bytes
from .taken import taken
from .targets import parse_time

#: What an operator may say in advance, so that a finding about it is only a warning.
WORDS = ("new_host",)


def footprints(job: Job, point: Point, names: list[str], found: Found) -> dict[str, Footprint]:
    """What the restore of these sources touches, as far as the sources can tell."""
    told: dict[str, Footprint] = {}
    for name in names:
        try:
            source, context = job.source(name)
            footprint = source.footprint(context, point.snapshots[name].data)
        except LifeboatError as error:
            found.add(error, name)
            continue
        if footprint is not None:
            told[name] = footprint
    return told


def needs(job: Job, touched: dict[str, Footprint], found: Found) -> list[dict[str, Any]]:
    """Room that the copies of all sources take, measured; a finding for every place where this service alone does not fit."""
    measured = []
    for name, footprint in touched.items():
        kept = sum(held_bytes(one.sources[name]) or 0 for one in job.restores() if one.holds and name in one.sources)
        final = f"or commit former restores, which keep {room.size(kept)} of {job.spec.service}.{name}" if kept else ""
        for need in footprint.needs:
            one = room.measured(need)
            if one is not None:
                measured.append({"source": name, **one, "hint": ", ".join(filter(None, (final, one["hint"])))})
    for device, total in room.added_up(measured).items():
        for error in room.lacking(total):
            found.add(error, None, kind="space", cause=device)
    return measured


def places(touched: dict[str, Footprint]) -> list[dict[str, Any]]:
    """[{"source", "live", "network", "inode", "system", "captured"}]; inode "device:number" of live data that is a path and is there."""
    told = []
    for name, footprint in touched.items():
        inode = ""
        if not footprint.network and os.path.isabs(footprint.live):
            try:
                status = os.stat(footprint.live)
                inode = f"{status.st_dev}:{status.st_ino}"
            except OSError:
                pass  # lost: it is restored
        told.append({"source": name, "live": footprint.live, "network": footprint.network, "inode": inode, "system": footprint.system,
                     "captured": footprint.captured})
    return told


def check_identity(job: Job, point: Point, touched: dict[str, Footprint], accept: tuple[str, ...], found: Found) -> None:
    """Data of another ecosystem, production where no production is meant, and another host than the last time."""
    origin = state.read_json(job.spec.path("origin.json")) or {}
    mine, here = taken(job.spec.catalog, ""), identity.host()
    owner = str(origin.get("ecosystem") or "")
    if owner and mine["ecosystem"] and owner != mine["ecosystem"]:
        found.add(TargetError(
            f"the live data was restored for ecosystem {owner}, this catalog is {mine['ecosystem']}", f"origin marker {job.spec.path('origin.json')}",
            "use the catalog it belongs to, or give this ecosystem a state_dir and places of its own",
        ), kind="identity")
    _neighbours(job, touched, mine["ecosystem"], found)
    marks = read_marks(job.spec, job.store.repository.id) or {}
    for name, footprint in touched.items():
        before = point.snapshots[name].data.get("taken") or {}
        there = dict(before.get("host") or {})
        known = bool(here["id"]) and bool(there.get("id"))
        same = there["id"] == here["id"] if known else there.get("name") == here["name"]
        if same or footprint.network:
            _foreign(name, footprint, before, mine, found)
        elif known and here["id"] not in (dict(origin.get("host") or {}).get("id"), (marks.get(name) or {}).get("host")):
            # neither restored nor captured here since
            level = "warning" if "new_host" in accept else "error"
            found.add(TargetError(
                f"host {here['name']} is another machine than {there['name']}, where the snapshot was taken", f"machine {here['id']}, was {there['id']}",
                "make sure that the inventory leads to the right machine; if the service moves there, say so: "
                f"-e lifeboat_new_hosts={job.spec.entry.get('host') or here['name']} (lifeboat restore: --new-host)",
            ), None, level, "identity", f"host {here['id']}")


def _foreign(name: str, footprint: Footprint, before: dict[str, Any], mine: dict[str, Any], found: Found) -> None:
    """The very place where a snapshot of another ecosystem, or of production, was taken."""
    if not before.get("live") or before["live"] != footprint.live:
        return
    owner = str(before.get("ecosystem") or "")
    if before.get("production") and not mine["production"]:
        found.add(TargetError(
            f"this is the live data of production{f' ecosystem {owner}' if owner else ''}, and this catalog is not marked production", footprint.live,
            "give the source a place of its own in this catalog; if it is production, mark the catalog with production: true and confirm",
        ), name, kind="identity")
    elif owner and mine["ecosystem"] and owner != mine["ecosystem"]:
        found.add(TargetError(
            f"this is the live data of ecosystem {owner}, this catalog is {mine['ecosystem']}", footprint.live,
            "give the source a place of its own in this catalog; after a change of name take a new backup first",
        ), name, kind="identity")


def _neighbours(job: Job, touched: dict[str, Footprint], ecosystem: str, found: Found) -> None:
    """Origin markers of the other services of this host: data that was restored for one of them is theirs."""
    folder = os.path.dirname(job.spec.service_dir)
    try:
        names = sorted(set(os.listdir(folder)) - {job.spec.service})
    except OSError:
        return
    mine = {footprint.live: name for name, footprint in touched.items()}
    for other in names:
        try:
            origin = state.read_json(os.path.join(folder, other, "origin.json")) or {}
        except LifeboatError:
            continue  # that service's own preflight tells
        for place in (origin.get("places") or {}).values():
            if place in mine:
                found.add(TargetError(
                    f"the live data belongs to service {other}" + (f" of ecosystem {origin['ecosystem']}" if origin.get("ecosystem") else ""), str(place),
                    "correct the place of one of the two in the catalog; when that service is gone for good, remove its directory below state_dir",
                ), mine[place], kind="identity")


def check_clocks(job: Job, point: Point, asked: str, clock: Callable[[], float], found: Found) -> None:
    """The repository's clock, and whether the snapshots come from the future."""
    timed = timed_target(asked, point)
    url = str(job.spec.repository.get("url", ""))
    try:
        skew = job.store.backend.skew(clock, [manifest.name for manifest in point.snapshots.values()])
    except LifeboatError as error:
        found.add(error, cause=url)
        skew = None
    told = clocks.judge(skew, f"the repository {url}", "this host", timed) if skew else None
    if told:
        found.add(told[1], None, told[0], cause=url)
    for name, manifest in point.snapshots.items():
        finished = _seconds(str(manifest.data["finished"]))
        ahead = clocks.Skew(finished - clock(), float("inf")) if finished is not None else None
        told = clocks.judge(ahead, f"the host of snapshot {manifest.id}", "this host", timed) if ahead else None
        if told:
            found.add(told[1], name, told[0])


def timed_target(asked: str, point: Point) -> bool:
    """Does the restore end at a time that a clock said?"""
    return _seconds(asked) is not None or any(position.as_dict().get("kind") == "time" for position in point.positions.values())


def _seconds(text: str) -> float | None:
    try:
        return parse_time(text).timestamp()
    except ValueError:
        return None
