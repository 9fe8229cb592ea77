# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The life of a service's data key: a new version, everything wrapped anew under it, the old version retired.

What is rewritten are the small key objects, each as a new generation beside the old one. The ledger keeps the intent, so a killed
rotation is completed by the next one and does not make a second version; which keys are left to do the repository itself tells.
"""

from __future__ import annotations

import collections
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import faults
from ..errors import ConfigError, ConflictError, DamageError, LifeboatError
from ..keys.provider import KeyVersionError
from ..ledger import Entry, Ledger
from ..progress import Progress
from ..repository import datakeys, tombstone
from ..repository.backend import Backend
from ..repository.keyring import KeyRing, key_ring
from ..repository.repository import Repository
from .inspect import missing_tail, read_marks

if TYPE_CHECKING:
    from ..repository.repository import ServiceStore
    from ..spec import Spec

#: Data keys that one thread reads, rewraps in one request and writes before it says so.
BATCH = 250
#: Small objects on their way at a time: their durability is waited for, not computed.
WORKERS = 8
_SHOWN = 5


@dataclass
class Rewrapped:
    """What became of a service's data keys: {"keys", "rewrapped", "current"} counts, and what could not be rewrapped."""

    keys: int = 0
    rewrapped: int = 0
    current: int = 0
    problems: list[LifeboatError] = field(default_factory=list)


def rotate_service(spec: Spec, run: dict[str, Any], progress: Progress, new_version: bool = True) -> dict[str, Any]:
    """Make a new version of the data key and wrap every stored data key under it; without ``new_version`` only the second.

    Returns {"changed", "version", "key", "data_keys", "rewrapped", "warnings"}. DamageError when some keys could not be rewrapped: the others are.
    """
    ledger = Ledger.for_spec(spec)
    store = spec.store(WORKERS)
    provider = store.provider
    versions = provider.versions()
    unfinished = _unfinished(ledger.entries(), "rotate", store.repository.id)
    if unfinished is None:
        after = versions.newest if new_version else versions.newest - 1
        ledger.append(run, "rotate", "rotate.intent", {"repository": store.repository.id, "after": after, "key": versions.names[versions.newest]})
    else:
        after = int(unfinished["data"]["after"])
    faults.point("rotate.intent")
    newest = provider.rotate(after)
    name = provider.versions().names[newest]
    ledger.append(run, "rotate", "rotate.version", {"version": newest, "key": name})
    faults.point("rotate.version")
    ring, warnings = _ring(spec, store)
    done = _rewrap(store, ring, newest, ledger, run, progress)
    counts = {"version": newest, "key": name, "data_keys": done.keys, "rewrapped": done.rewrapped}
    ledger.append(run, "rotate", "rotate.done", {**counts, "left": [problem.as_dict() for problem in done.problems[:_SHOWN]], "failed": len(done.problems)})
    if done.problems:
        first = done.problems[0]
        raise DamageError(f"{len(done.problems)} of {done.keys} data keys could not be rewrapped, first: {first.what}", first.where, first.remedy)
    return {"changed": newest > versions.newest or done.rewrapped > 0, **counts, "warnings": warnings, "ledger": ledger.appended}


def preview_rotation(spec: Spec, new_version: bool = True) -> dict[str, Any]:
    """What rotate_service would do, changing nothing."""
    store = spec.store(WORKERS)
    versions = store.provider.versions()
    newest = versions.newest + (1 if new_version else 0)
    ring, warnings = _ring(spec, store)
    old = [key for key in _stored(store, ring, warnings).values() if store.provider.number_of(key.wrapped) < newest]
    return {"changed": new_version or bool(old), "version": newest, "data_keys": len(ring.needed), "rewrapped": len(old), "warnings": warnings}


def describe(spec: Spec) -> dict[str, Any]:
    """{"version", "versions": [{"number", "name", "state", "keys"}], "keys", "escrow_copies", "tombstone", "warnings"}; changes nothing."""
    store = spec.store(WORKERS)
    shredded = tombstone.read(store.backend, store.provider, store.repository.id, spec.service)
    told: dict[str, Any] = {"changed": False, "tombstone": shredded, "version": 0, "versions": [], "data_keys": 0, "escrow_copies": 0, "warnings": []}
    if shredded is not None:
        return told
    versions = store.provider.versions()
    ring, warnings = _ring(spec, store)
    stored = _stored(store, ring, warnings)
    under = collections.Counter(store.provider.number_of(key.wrapped) for key in stored.values())
    listed = [
        {"number": number, "name": name, "keys": under[number],
         "state": "current" if number == versions.newest else "opens" if number >= versions.oldest else "retired"}
        for number, name in sorted(versions.names.items())
    ]
    copies = sum(1 for key in stored.values() if key.wrapped.escrow is not None)
    return {**told, "version": versions.newest, "versions": listed, "data_keys": len(ring.needed), "escrow_copies": copies, "warnings": warnings}


def _unfinished(entries: list[Entry], verb: str, repository: str) -> Entry | None:
    """The newest intent in this repository that nothing has ended."""
    intent = None
    for entry in entries:
        if entry["event"] == f"{verb}.intent" and entry["data"].get("repository") == repository:
            intent = entry
        elif entry["event"] in (f"{verb}.done", f"{verb}.undone"):
            intent = None
    return intent


def _ring(spec: Spec, store: ServiceStore) -> tuple[KeyRing, list[dict[str, str]]]:
    ring, chains = key_ring(store, spec.source_names)
    ring.problems += missing_tail(chains, read_marks(spec, store.repository.id))
    return ring, [problem.as_dict() for problem in ring.problems]


def _rewrap(store: ServiceStore, ring: KeyRing, newest: int, ledger: Ledger, run: dict[str, Any], progress: Progress) -> Rewrapped:
    ids = sorted(ring.needed)
    total = Rewrapped(keys=len(ids))
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="rewrap") as threads:
        parts = [threads.submit(_part, store, {key_id: ring.needed[key_id] for key_id in ids[at:at + BATCH]}, newest) for at in range(0, len(ids), BATCH)]
        try:
            for part in as_completed(parts):
                done = part.result()
                total.rewrapped, total.current = total.rewrapped + done.rewrapped, total.current + done.current
                total.problems += done.problems
                progress.add(items=done.keys)
                if done.rewrapped:
                    ledger.append(run, "rotate", "rotate.batch", {"rewrapped": total.rewrapped, "of": total.keys})
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    return total


def _part(store: ServiceStore, wanted: dict[str, str], newest: int) -> Rewrapped:
    """One batch: read, rewrap what is older in one request, write beside."""
    done = Rewrapped(keys=len(wanted))
    old = []
    for key_id, needed_by in wanted.items():
        try:
            key = _readable(store, key_id, needed_by)
            if store.provider.number_of(key.wrapped) < newest:
                old.append(key)
            else:
                done.current += 1
        except (DamageError, KeyVersionError) as error:
            done.problems.append(error)
    if not old:
        return done
    for key, wrapped in _rewrapped(store, old, done.problems):
        if store.provider.number_of(wrapped) < newest:
            raise ConflictError("the key server wrapped a key under an old version", key.id, "ask its leader, not a standby, then run the same command again")
        datakeys.store_next(store.backend, store.service, key, wrapped)
        faults.point("rotate.stored")
        done.rewrapped += 1
    return done


def _readable(store: ServiceStore, key_id: str, needed_by: str) -> datakeys.StoredKey:
    """The newest generation whose object is sound, numbered as the newest: what is written next comes behind all there are."""
    newest = datakeys.newest_generation(store.backend, store.service, key_id) or 0
    first: DamageError | None = None
    for generation in range(newest, -1, -1):
        try:
            found = datakeys.read_generation(store.backend, store.service, key_id, generation, needed_by)
            return datakeys.StoredKey(key_id, newest, found.wrapped)
        except DamageError as error:
            first = first or error
    raise first or DamageError("data key is missing", key_id, "")


def _rewrapped(
    store: ServiceStore, old: list[datakeys.StoredKey], problems: list[LifeboatError]
) -> list[tuple[datakeys.StoredKey, Any]]:
    """Rewrap all in one call; when one of them does not open, each by itself, so that it hurts no other."""
    def bound(key: datakeys.StoredKey) -> bytes:
        return datakeys.context(store.repository.id, store.service, key.id)

    try:
        return list(zip(old, store.provider.rewrap([(bound(key), key.wrapped) for key in old])))
    except (DamageError, KeyVersionError):
        found = []
        for key in old:
            try:
                found.append((key, store.provider.rewrap([(bound(key), key.wrapped)])[0]))
            except (DamageError, KeyVersionError) as error:
                problems.append(error)
        return found


def _stored(store: ServiceStore, ring: KeyRing, problems: list[dict[str, str]]) -> dict[str, datakeys.StoredKey]:
    """Every key's newest generation; what cannot be read is added to ``problems``."""
    def one(key_id: str) -> datakeys.StoredKey | LifeboatError:
        try:
            return datakeys.read_newest(store.backend, store.service, key_id, ring.needed[key_id])
        except DamageError as error:
            return error

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="keys") as threads:
        found = list(threads.map(one, sorted(ring.needed)))
    problems += [error.as_dict() for error in found if isinstance(error, LifeboatError)]
    return {key.id: key for key in found if isinstance(key, datakeys.StoredKey)}


def retire_version(spec: Spec, run: dict[str, Any], version: str, check: bool) -> dict[str, Any]:
    """Retire the versions up to ``version`` (a number), when nothing needs one of them: {"changed", "version", "retired": [names], "data_keys"}.

    Refused while a data key is still wrapped under one of them, and when it is not certain that all keys are known.
    """
    ledger = Ledger.for_spec(spec)
    store = spec.store(WORKERS)
    versions = store.provider.versions()
    where = f"service {spec.service}, {versions.names[versions.newest]} is the newest"
    if not version.isdigit() or int(version) not in versions.names:
        raise ConfigError(f"there is no version {version!r} of the data key", where, f"there are: {', '.join(map(str, versions.names))}")
    through = int(version)
    if through == versions.newest:
        raise ConfigError(f"version {through} is the newest and makes new data keys", where, "rotate first (rotate_keys), then retire it")
    told = {"version": through, "retired": [name for number, name in versions.names.items() if versions.oldest <= number <= through]}
    keys = _refuse_needed(spec, store, through)
    begun = _unfinished(ledger.entries(), "retire", store.repository.id) is not None
    if (through < versions.oldest and not begun) or check:
        return {"changed": bool(told["retired"]), **told, "data_keys": keys, "ledger": ledger.appended}
    ledger.append(run, "rotate", "retire.intent", {"repository": store.repository.id, **told, "data_keys": keys})
    store.provider.retire(through)
    faults.point("rotate.retired")
    try:
        _refuse_needed(spec, store, through)  # a capture may have been on its way
    except LifeboatError as error:
        ledger.append(run, "rotate", "retire.undone", error.as_dict())
        error.remedy = f"version {through} is retired already, allow it again now (docs/keys.md, \"Retiring\"), then: {error.remedy}"
        raise
    ledger.append(run, "rotate", "retire.done", {**told, "data_keys": keys})
    return {"changed": True, **told, "data_keys": keys, "ledger": ledger.appended}


def _refuse_needed(spec: Spec, store: ServiceStore, through: int) -> int:
    """How many data keys there are; KeyVersionError or DamageError when one needs a version up to ``through`` or may."""
    ring, problems = _ring(spec, store)
    stored = _stored(store, ring, problems)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DamageError(
            f"it is not certain which data keys are needed{more}: {problems[0]['what']}", problems[0]["where"],
            "nothing was retired; mend or accept that first (verify names everything)",
        )
    old = [key for key in stored.values() if store.provider.number_of(key.wrapped) <= through]
    if old:
        shown = ", ".join(sorted(ring.needed[key.id] for key in old)[:_SHOWN])
        raise KeyVersionError(
            f"version {through} of the data key is still needed by {len(old)} of {len(stored)} data keys", f"service {spec.service}: {shown}",
            "nothing was retired; rewrap them first (rotate_keys)",
        )
    _refuse_behind(spec, store, stored, through)
    return len(stored)


def _refuse_behind(spec: Spec, store: ServiceStore, stored: dict[str, datakeys.StoredKey], through: int) -> None:
    """KeyVersionError when a copy of the repository holds only older generations of a key: nothing could be restored from it any more."""
    for config in spec.repository.get("copies") or []:
        backend = Repository.open(config).backend

        def is_behind(key_id: str, backend: Backend = backend) -> bool:
            if datakeys.newest_generation(backend, store.service, key_id) is None:
                return False  # was not copied yet, as what needs it
            return store.provider.number_of(datakeys.read_key(backend, store.service, key_id, "of a copy")) <= through

        with ThreadPoolExecutor(WORKERS, thread_name_prefix="copies") as threads:
            behind = sum(threads.map(is_behind, sorted(stored)))
        if behind:
            raise KeyVersionError(
                f"version {through} of the data key is still needed by {behind} data keys in a copy of the repository", str(config.get("url")),
                "nothing was retired; copy the rewrapped keys there first",
            )
