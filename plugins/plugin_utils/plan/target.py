# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a target means for each picked service, and what the next best choice would lose.

Points are what snapshot_info gives per service: {"id", "time", "finished", "complete", "snapshots": {source: id}, "missing",
"bytes", "proven", "logs": {source: {"timeline", "start", "end", "until"}} where a log goes on from the snapshot}. Sequence
numbers decide which is newer, times only inform. A consistency group goes to one point.
"""

from __future__ import annotations

import difflib
import math
import re
from datetime import datetime, timezone
from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import TargetError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.targets import Position, split

from ..catalog.graph import Services
from ..catalog.problems import shown
from .pick import command, groups_of

Point = Mapping[str, Any]

#: A group's points name their snapshots "service/source".
_SEQUENCE = re.compile(r"-([0-9]+)-[0-9a-f]+\Z")


class TargetErrors(TargetError):
    """One error per service or group that the target cannot be resolved for; the text has one line each."""

    def __init__(self, errors: Sequence[TargetError]) -> None:
        self.errors = list(errors)
        super().__init__(errors[0].what, errors[0].where, errors[0].remedy)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def parse_time(text: str) -> datetime | None:
    """An ISO 8601 time; None if it is none. The caller refuses one without a zone."""
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00") if text.strip().endswith("Z") else text.strip())
    except ValueError:
        return None


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one point's time to another's; never negative, because clocks lie."""
    first, second = parse_time(earlier), parse_time(later)
    if first is None or second is None or first.tzinfo is None or second.tzinfo is None:
        return 0.0
    return max(0.0, round((second - first).total_seconds(), 3))


def loss_between(older: str, newer: str) -> float | None:
    """Seconds of work that going back to the older point loses; null when the clocks cannot say, as the older one claims to be later."""
    first, second = parse_time(older), parse_time(newer)
    if first is None or second is None or first.tzinfo is None or second.tzinfo is None or first > second:
        return None
    return round((second - first).total_seconds(), 3)


def _shown_loss(lost: float | None) -> str:
    return "an unknown time, because the clock was set back between them" if lost is None else f"{lost:g}s more"


def newest_first(points: Sequence[Point]) -> list[Point]:
    """By the highest sequence number of their snapshots; the given order (oldest first) where there is none."""
    def sequence(indexed: tuple[int, Point]) -> tuple[int, int]:
        if indexed[1].get("ordered"):
            return (-1, indexed[0])
        numbers = [int(match.group(1)) for match in map(_SEQUENCE.search, (indexed[1].get("snapshots") or {}).values()) if match]
        return (max(numbers, default=-1), indexed[0])
    return [point for _index, point in sorted(enumerate(points), key=sequence, reverse=True)]


def candidates(points: Sequence[Point], now: datetime | None = None) -> list[dict[str, Any]]:
    """Every point, newest first, with what choosing it means.

    Adds "usable" (complete), "age_seconds" (before now; null without ``now``) and "lost_seconds" (what it loses
    compared with the newest complete point; null for a torn one, and where the clocks contradict the sequence numbers).
    """
    ordered = newest_first(points)
    complete = [point for point in ordered if point.get("complete")]
    result = []
    for point in ordered:
        usable = bool(point.get("complete"))
        result.append({
            **point,
            "usable": usable,
            "age_seconds": seconds_between(point["time"], now.isoformat()) if now else None,
            "lost_seconds": loss_between(point["time"], complete[0]["time"]) if usable else None,
        })
    return result


def find(owner: str, points: Sequence[Point], target: str, now: datetime | None = None) -> Point:
    """The complete point that ``target`` means for one service or group. TargetError names what there is instead."""
    ordered = newest_first(points)
    complete = [point for point in ordered if point.get("complete")]
    newest = ", ".join(str(point["id"]) for point in complete[:3])

    def refuse(what: str, remedy: str = "") -> TargetError:
        offer = f"newest complete points: {newest}" if complete else "take a backup first: the backup playbook"
        return TargetError(what, owner, f"{remedy}; {offer}" if remedy else offer)

    if not ordered:
        raise refuse("no recovery point exists")
    if target == "latest":
        if not complete:
            raise refuse(f"no complete point: the newest, {ordered[0]['id']}, lacks {', '.join(ordered[0].get('missing') or ['a source'])}")
        return complete[0]
    if target == "proven":
        proven = [point for point in complete if point.get("proven")]
        if not proven:
            raise refuse("no point has been proven by a restore or drill yet", "use lifeboat_target=latest, or drill one")
        return proven[0]
    for point in ordered:
        if target == point["id"] or target in (point.get("snapshots") or {}).values():
            if not point.get("complete"):
                raise refuse(f"point {point['id']} is torn: it lacks {', '.join(point.get('missing') or ['a source'])}")
            return point
    moment = parse_time(target)
    if moment is None:
        raise refuse(f'unknown target "{shown(target)}"', _nearest_target(target, ordered))
    if moment.tzinfo is None:
        raise refuse(f'target time "{shown(target)}" has no zone', f"write {target.strip()}Z for UTC, or add +01:00")
    if now is not None and moment > now:
        raise refuse(f"target time {target} is in the future", "use lifeboat_target=latest for the newest")
    for point in complete:
        taken = parse_time(point["time"])
        if taken is not None and taken.tzinfo is not None and taken <= moment:
            return point
    oldest = f"the oldest complete point is {complete[-1]['id']} of {complete[-1]['time']}" if complete else ""
    raise refuse(f"no complete point at or before {target}", oldest)


def find_at(owner: str, points: Sequence[Point], target: str, now: datetime | None = None) -> tuple[Point, Position | None]:
    """As find(), and the position in the logs behind the point; None for the point itself."""
    try:
        base, position = split(target)
    except ValueError as error:
        raise TargetError(f'target "{shown(target)}" cannot be understood: {error}', owner, "see the words of a target in docs/verbs.md") from error
    logged = [point for point in newest_first(points) if point.get("complete") and point.get("logs")]
    if position is None:
        point = find(owner, points, target, now)
        moment = parse_time(target)
        if target == "latest" and point.get("logs"):
            return point, Position("latest")
        if moment is None or not logged or target in (point["id"], *(point.get("snapshots") or {}).values()):
            return point, None
        base, position = "", Position("time", target.strip())
    if base:
        point = find(owner, points, base, now)
        if not point.get("logs") and position.kind != "immediate":
            raise TargetError(f"no log goes on from point {point['id']}", owner, f"use lifeboat_target={point['id']} for the point itself")
        return point, position
    for point in logged:
        if not _beyond(point, position):
            return point, position
    if not logged:
        raise TargetError(f"no point has a log that could lead to {position}", owner, "name a point, or use lifeboat_target=latest")
    raise TargetError(f"position {position} cannot be reached: {_beyond(logged[0], position)}", owner, f"newest point with a log: {logged[0]['id']}")


def _beyond(point: Point, position: Position) -> str:
    """Why a position is outside what the point and its logs cover, as far as that is known here; "" when nothing says so."""
    logs = point["logs"].values()
    until = min(str(log["until"]) for log in logs)
    if position.kind == "time":
        moment, first, last = parse_time(position.value), parse_time(str(point.get("finished") or point["time"])), parse_time(until)
        if moment is not None and last is not None and moment > last:
            return f"the log is proven up to {until}"
        if moment is not None and first is not None and moment < first:
            return f"the oldest point with a log is from {point.get('finished') or point['time']}"
    if position.kind == "lsn" and len(logs) == 1:
        (log,) = logs
        high, _slash, low = position.value.partition("/")
        place = (int(high, 16) << 32) + int(low, 16)
        if not int(log["start"]) <= place <= int(log["end"]):
            return f"the log covers {_lsn(log['start'])} to {_lsn(log['end'])}"
    return ""


def _lsn(place: int) -> str:
    return f"{int(place) >> 32:X}/{int(place) & 0xffffffff:X}"


def _nearest_target(target: str, points: Sequence[Point]) -> str:
    words = ["latest", "proven", *(str(point["id"]) for point in points)]
    words += [str(snapshot) for point in points for snapshot in (point.get("snapshots") or {}).values()]
    close = difflib.get_close_matches(target, words, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else "use latest, proven, an ISO time with zone, a point id or a snapshot id"


def units(services: Services, picked: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What goes to one point together: ("orders", ["orders"]) or ("consistency group checkout", [its picked members]).

    Services without sources have nothing to go back to and are left out.
    """
    stateful = [service for service in picked if services[service].get("sources")]
    result: list[tuple[str, list[str]]] = []
    seen: set[str] = set()
    groups = groups_of(services)
    for service in stateful:
        if service in seen:
            continue
        group = services[service].get("consistency_group")
        members = [member for member in stateful if group and member in groups[str(group)]] or [service]
        seen.update(members)
        result.append((f"consistency group {group}" if len(members) > 1 else service, members))
    return result


def merged(members: Sequence[str], points: Mapping[str, Sequence[Point]]) -> list[dict[str, Any]]:
    """The points of a group: one per run that captured any member, complete only if it captured every member whole."""
    if len(members) == 1:
        return [dict(point) for point in points.get(members[0]) or ()]
    order: list[str] = []
    found: dict[str, dict[str, Point]] = {}
    for member in members:
        position = 0
        for point in points.get(member) or ():
            # A merge that keeps each member's own order: sequence numbers of different services cannot be compared.
            if point["id"] in found:
                position = max(position, order.index(point["id"]) + 1)
            else:
                order.insert(position, point["id"])
                position += 1
            found.setdefault(point["id"], {})[member] = point
    result = []
    for name in order:
        parts = found[name]
        missing = [member for member in members if member not in parts]
        missing += [f"{member}.{source}" for member, part in parts.items() for source in part.get("missing") or ()]
        times = sorted(str(part["time"]) for part in parts.values())
        result.append({
            "id": name, "time": times[-1], "complete": not missing and all(part.get("complete") for part in parts.values()),
            "missing": missing, "proven": all(part.get("proven") for part in parts.values()) and not missing,
            "bytes": sum(int(part.get("bytes") or 0) for part in parts.values()),
            "snapshots": {f"{member}/{source}": snapshot for member, part in parts.items() for source, snapshot in part["snapshots"].items()},
            "skew_seconds": seconds_between(times[0], times[-1]), "ordered": True,
            "finished": max(str(part.get("finished") or part["time"]) for part in parts.values()),
            "logs": {f"{member}/{source}": log for member, part in parts.items() for source, log in (part.get("logs") or {}).items()},
        })
    return result


def resolve(services: Services, picked: Sequence[str], points: Mapping[str, Sequence[Point]], target: str = "latest",
            now: datetime | None = None, inventory: str = "") -> dict[str, dict[str, Any]]:
    """Pin the target for every picked service; TargetErrors has a line for each service or group without one.

    Gives service -> {"target" (as asked), "point", "at" (the point, with the position in its log where there is one), "time",
    "snapshots", "bytes", "proven", "age_seconds", "together" (services that share the point), "next": {"point", "time",
    "lost_seconds", "command"} or null}; for a service without sources point is null and "stateless" true.
    """
    now = now or datetime.now(timezone.utc)
    result: dict[str, dict[str, Any]] = {
        service: {"target": target, "point": None, "at": None, "time": None, "snapshots": {}, "bytes": 0, "proven": False, "age_seconds": None,
                  "together": [service], "next": None, "stateless": True}
        for service in picked
    }
    errors: list[TargetError] = []
    every = units(services, picked)
    if _is_snapshot_of_one(target, points) and len(every) > 1:
        owner = _is_snapshot_of_one(target, points)
        raise TargetErrors([TargetError("a snapshot id is a target for one service", f"{target} belongs to {owner}",
                                        f"add -e lifeboat_services={owner}, or name its recovery point for all")])
    for owner, members in every:
        combined = merged(members, points)
        try:
            chosen, position = find_at(owner, combined, target, now)
        except TargetError as error:
            errors.append(error)
            continue
        following = next_candidate(combined, str(chosen["id"]), inventory)
        for member in members:
            own = _member(points, member, chosen["id"])
            at = position if own.get("logs") else None
            time = _time_at(own, at)
            result[member] = {
                "target": target, "point": own["id"], "at": f"{own['id']}@{at}" if at else own["id"], "time": time, "snapshots": dict(own["snapshots"]),
                "bytes": int(own.get("bytes") or 0), "proven": bool(own.get("proven")),
                "age_seconds": seconds_between(time, now.isoformat()), "together": list(members), "next": following, "stateless": False,
            }
    if errors:
        raise TargetErrors(errors)
    return result


def _time_at(point: Point, position: Position | None) -> str:
    """The time a point and a position in its logs stand for, as far as that is known before the restore."""
    if position is None or position.kind not in ("latest", "time"):
        return str(point["time"])
    return position.value or min(str(log["until"]) for log in point["logs"].values())


def _member(points: Mapping[str, Sequence[Point]], member: str, name: object) -> Point:
    """A member's own part of a group's complete point."""
    return next(point for point in points[member] if point["id"] == name)


def _is_snapshot_of_one(target: str, points: Mapping[str, Sequence[Point]]) -> str:
    for service, own in points.items():
        if any(target in (point.get("snapshots") or {}).values() for point in own):
            return service
    return ""


def next_candidate(points: Sequence[Point], chosen: str, inventory: str = "") -> dict[str, Any] | None:
    """The newest complete point older than the chosen one, what it would lose more, and the command to take it."""
    complete = [point for point in newest_first(points) if point.get("complete")]
    position = next((index for index, point in enumerate(complete) if point["id"] == chosen), None)
    if position is None or position + 1 >= len(complete):
        return None
    following = complete[position + 1]
    return {
        "point": following["id"], "time": following["time"],
        "lost_seconds": loss_between(following["time"], complete[position]["time"]),
        "command": command("restore", inventory, target=following["id"]),
    }


def fall_back(services: Services, resolved: Mapping[str, Mapping[str, Any]], points: Mapping[str, Sequence[Point]],
              failed: Sequence[str], max_loss: float = 0, inventory: str = "") -> dict[str, dict[str, Any]]:
    """The next candidates for services whose snapshot did not verify, whole groups together.

    Gives the new resolutions of those services. TargetErrors, with what would be lost and the command, where nothing
    older exists or where it would lose more than ``max_loss`` seconds compared with the point that was asked for.
    """
    errors: list[TargetError] = []
    result: dict[str, dict[str, Any]] = {}
    for owner, members in units(services, list(resolved)):
        if not set(members) & set(failed):
            continue
        current = resolved[members[0]]
        combined = merged(members, points)
        offer = next_candidate(combined, str(current["point"]), inventory)
        if offer is None:
            errors.append(TargetError(f"point {current['point']} does not verify and there is no older complete one", owner,
                                      "repair the repository, or restore these services from elsewhere"))
            continue
        asked = str(current.get("asked_point") or current["point"])
        losses = [loss_between(_member(points, member, offer["point"])["time"], _member(points, member, asked)["time"]) for member in members]
        lost = None if None in losses else max(loss for loss in losses if loss is not None)
        if lost is None or lost > max_loss:
            accept = f"accept it with -e lifeboat_max_loss={math.ceil(lost)}s, or run" if lost is not None else "if that is acceptable, run"
            errors.append(TargetError(
                f"point {current['point']} does not verify; the next candidate {offer['point']} would lose {_shown_loss(lost)}", owner,
                f"{accept}: {offer['command']}"))
            continue
        for member in members:
            own = _member(points, member, offer["point"])
            result[member] = {
                **resolved[member], "point": own["id"], "at": own["id"], "time": own["time"], "snapshots": dict(own["snapshots"]),
                "bytes": int(own.get("bytes") or 0), "proven": bool(own.get("proven")), "asked_point": asked,
                "fallback_from": current["point"], "lost_seconds": lost, "next": next_candidate(combined, str(own["id"]), inventory),
            }
    if errors:
        raise TargetErrors(errors)
    return result
