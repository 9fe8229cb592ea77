# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What is known of a log: how far it is proven in the repository, how far the server is, and what is wrong."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from .. import lease, state
from ..errors import DamageError, LifeboatError, SourceError
from ..repository import layout
from ..repository.log_index import load
from ..repository.log_piece import iso
from ..spec import Spec
from . import config, proven, wal
from .config import LogConfig
from .server import LogServer
from .spool import Spool

_GAP = "take a full snapshot: nothing behind the gap can be reached from an older one"
#: Seconds after which a shipper that tells nothing counts as hanging.
_SILENT = 30.0
#: Seconds the log may be behind where the catalog has no rpo.
_BEHIND = 60.0
#: Seconds in which a unit starts its shipper again.
_RESTART = 5.0


def status(spec: Spec, source: str) -> dict[str, Any]:
    """One source's log, {"ok", "source", "running", "state", "proven", "server", "lag", "slot", "spool", "gaps", "alarms"}.

    proven: {"timeline", "from", "position", "time", "epoch", "in_repository"}: read back from the repository, not merely sent to it;
    "in_repository" says that the repository lists it now (None: it could not be asked). lag: {"bytes", "seconds"}, None where unknown;
    seconds since the server was last seen with nothing that was not proven. gaps: with "closed_by", the snapshot that begins behind it.
    Nothing is changed; nothing here needs the shipper to run.
    """
    settings = config.read(spec, source)
    alarms: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    with contextlib.suppress(LifeboatError):
        told = state.read_json(os.path.join(settings.directory, "status.json")) or {}
    running = _alive(told)
    if not running:
        alarms.append(_alarm("shipper", SourceError("the log is not shipped: no shipper runs", settings.where,
                                                    f"start it: lifeboat log run {spec.service} {source}, or its systemd unit")))
    else:
        alarms += told.get("alarms") or []
        if _seconds(told.get("updated")) > _SILENT:
            alarms.append(_alarm("silent", SourceError("the shipper says nothing any more", f"process {told.get('pid')}", "restart it")))
    mark = proven.Proven()
    try:
        mark = proven.read(os.path.join(settings.directory, "proven.json"), str(spec.repository["url"]))
    except LifeboatError as error:
        alarms.append(_alarm("state", error))
    server = _server(settings, alarms)
    lag = _lag(mark, server, told)
    allowed = float(spec.entry.get("rpo") or _BEHIND)
    if lag["seconds"] is not None and lag["seconds"] > allowed:
        alarms.append(_alarm("behind", SourceError(f"the log is {lag['seconds']:.0f} s behind the server, more than {allowed:.0f} s", settings.where,
                                                   "look at the other alarms, the repository's speed and the network")))
    held, gaps = _repository(spec, source, mark, alarms)
    return {
        "ok": not alarms, "source": f"{spec.service}.{source}", "running": running, "state": told.get("state") if running else "not running",
        "proven": {"timeline": mark.timeline, "from": wal.text(mark.begin), "position": wal.text(mark.position), "time": iso(mark.time_ns),
                   "epoch": mark.epoch, "in_repository": held} if mark.timeline else None,
        "server": server, "lag": lag, "slot": (server or told.get("server") or {}).get("slot"),
        "spool": {"path": settings.spool, "bytes": _used(settings), "limit": settings.spool_limit}, "gaps": gaps, "alarms": alarms,
    }


def remembered(spec: Spec, source: str) -> dict[str, Any]:
    """What the host remembers of a log without asking anybody: {"running", "state", "timeline", "position", "caught_up", "alarms": names}."""
    settings = config.read(spec, source)
    told: dict[str, Any] = {}
    mark = proven.Proven()
    with contextlib.suppress(LifeboatError):
        told = state.read_json(os.path.join(settings.directory, "status.json")) or {}
        mark = proven.read(os.path.join(settings.directory, "proven.json"), str(spec.repository["url"]))
    running = _alive(told)
    return {"running": running, "state": told.get("state") if running else "not running", "timeline": mark.timeline or None,
            "position": wal.text(mark.position) if mark.timeline else None, "caught_up": told.get("caught_up"),
            "alarms": [str(alarm["name"]) for alarm in told.get("alarms") or []] if running else ["shipper"]}


def all_unshipped(spec: Spec) -> list[str]:
    """What unshipped() says of each source with a log."""
    return [why for why in (unshipped(spec, source) for source in config.names(spec)) if why]


def unshipped(spec: Spec, source: str, seconds: float = 30.0) -> str:
    """Why the log of the server as it is now is not being shipped; "" once all that it had when this was called is proven.

    Waits for a shipper that runs; one that does not run gets the time in which its unit would start it again.
    """
    settings = config.read(spec, source)
    begun = time.monotonic()
    server = LogServer(settings.client(), settings.slot)
    wanted: tuple[int, int] | None = None
    try:
        while True:
            told: dict[str, Any] = {}
            why = f"no shipper runs; start it: lifeboat log run {spec.service} {source}, or its systemd unit"
            with contextlib.suppress(LifeboatError):
                told = state.read_json(os.path.join(settings.directory, "status.json")) or {}
            if _alive(told):
                why = _behind(settings, spec, server, wanted)
                if not why:
                    return ""
                if wanted is None:
                    with contextlib.suppress(LifeboatError):
                        sample = server.sample()
                        wanted = (sample.timeline or 0, sample.position)
                why += "".join(f"; {alarm['what']}: {alarm['where']}" for alarm in (told.get("alarms") or [])[:1])
            if time.monotonic() - begun > (seconds if _alive(told) else min(seconds, _RESTART)):
                return f"the log of {source} is not shipped: {why}"
            time.sleep(0.2)
    finally:
        server.close()


def _behind(settings: LogConfig, spec: Spec, server: LogServer, wanted: tuple[int, int] | None) -> str:
    """Why what was wanted, a position on a timeline (0: any), is not proven while the slot keeps the rest."""
    try:
        mark = proven.read(os.path.join(settings.directory, "proven.json"), str(spec.repository["url"]))
        sample = server.sample()
    except LifeboatError as error:
        return str(error)
    timeline, position = wanted or (sample.timeline or 0, sample.position)
    if timeline and mark.timeline != timeline:
        return f"timeline {timeline} of the server is not in the repository yet"
    if mark.position < position:
        return f"it is proven up to {wal.text(mark.position)}, the server was at {wal.text(position)}"
    return "" if sample.slot["exists"] and sample.slot["active"] else f"the slot {settings.slot} is not in use"


def _alarm(name: str, error: LifeboatError) -> dict[str, Any]:
    return {"name": name, "since": None, **error.as_dict()}


def _alive(told: dict[str, Any]) -> bool:
    return bool(told) and told.get("boot") == lease.boot_id() and lease.process_started(int(told.get("pid") or 0)) == told.get("pid_started") != ""


def _seconds(stamp: Any) -> float:
    import datetime

    try:
        return time.time() - datetime.datetime.fromisoformat(str(stamp).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")


def _used(settings: LogConfig) -> int:
    try:
        return Spool(settings.spool).used()
    except LifeboatError:
        return 0


def _server(settings: LogConfig, alarms: list[dict[str, Any]]) -> dict[str, Any] | None:
    server = LogServer(settings.client(), settings.slot)
    try:
        sample = server.sample()
    except LifeboatError as error:
        alarms.append(_alarm("server", error))
        return None
    finally:
        server.close()
    if not sample.slot["exists"]:
        alarms.append(_alarm("slot", SourceError("the slot does not exist: the server keeps no log for the shipper",
                                                 f"slot {settings.slot}, {server.client.place}", "start the shipper, it makes the slot")))
    return {"time": iso(sample.time_ns), "timeline": sample.timeline, "position": wal.text(sample.position), "standby": sample.standby, "slot": sample.slot}


def _lag(mark: proven.Proven, server: dict[str, Any] | None, told: dict[str, Any]) -> dict[str, Any]:
    """Nothing unproven on the server: no lag. Else the age of the last look at which that was so."""
    seen = server or told.get("server")
    if not seen or not mark.timeline:
        return {"bytes": None, "seconds": None}
    same = (seen.get("timeline") or mark.timeline) == mark.timeline
    count = max(0, wal.parse(seen["position"]) - mark.position) if same else None
    since = max(_seconds(told.get("caught_up")), 0.0)
    return {"bytes": count, "seconds": 0.0 if count == 0 and server else None if since == float("inf") else round(since, 3)}


def _repository(spec: Spec, source: str, mark: proven.Proven, alarms: list[dict[str, Any]]) -> tuple[bool | None, list[dict[str, Any]]]:
    """(the repository lists what is proven, the gaps)."""
    gaps = [dict(gap, closed_by=None) for gap in mark.gaps]
    held = None
    try:
        store = spec.store()
        if mark.timeline:
            index = load(store.backend, store.provider, store.repository.id, spec.service, source, max(0, mark.epoch - 1))
            reached = index.end_of(mark.system, mark.timeline)
            held = mark.position == mark.begin or (reached is not None and reached >= mark.position)
            if not held:
                alarms.append(_alarm("missing", DamageError(
                    f"the log in the repository ends at {wal.text(reached or 0)}, it was proven up to {wal.text(mark.position)}",
                    layout.log_epoch(spec.service, source, mark.epoch), "somebody or something removed it; " + _GAP)))
            alarms += [_alarm("damage", problem) for problem in index.problems]
        if gaps:
            _closed(store.chains(), source, gaps)
    except LifeboatError as error:
        if not any(alarm["name"] == "repository" for alarm in alarms):
            alarms.append(_alarm("repository", error))
    for gap in gaps:
        if not gap["closed_by"]:
            alarms.append(_alarm("gap", DamageError(f"the log has a gap from {gap['from']} to {gap['to']} of timeline {gap['timeline']} ({gap['reason']})",
                                                    f"{spec.service}.{source}", _GAP)))
    return held, gaps


def _closed(chains: list[Any], source: str, gaps: list[dict[str, Any]]) -> None:
    """A snapshot that was begun after a gap was found needs nothing of what is missing."""
    for manifest in [manifest for chain in chains if chain.source == source for manifest in chain.manifests]:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            facts = manifest.data["facts"]
            start, timeline = wal.parse(facts["start_lsn"]), int(facts["timeline"])
            for gap in gaps:
                if not gap["closed_by"] and start >= wal.parse(gap["to"]) and timeline >= gap["timeline"] and manifest.data["started"] >= gap["found"]:
                    gap["closed_by"] = manifest.id
