# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What modules and the host command call: one function per thing that can be asked of a service.

Each imports what it needs when it is called: a module compiles everything it imports anew on every call.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable, Iterator

from .. import checks, lease, policy, state
from ..errors import ConfigError, KeyAccessError, LifeboatError
from ..ledger import Ledger
from ..progress import Progress
from ..spec import Spec
from . import history, measured
from .restore_state import fold, held_bytes

if TYPE_CHECKING:
    from .extract import Request


@contextlib.contextmanager
def shown_progress(spec: Spec, phase: str) -> Iterator[Progress]:
    """Progress that the live view can read, removed at the end."""
    progress = Progress(spec.service, phase, spec.path("progress.json"))
    try:
        yield progress
    finally:
        progress.close()


def prepare_repository(spec: Spec, check: bool) -> dict[str, Any]:
    """Make repository and keys where they are missing and try them; {"changed", "repository": {"id", "url"}, "made": [..]}."""
    from ..repository import tombstone
    from ..repository.repository import Repository

    repository, made_repository = Repository.create(spec.repository, check)
    provider = spec.provider()
    if repository is not None:
        tombstone.refuse(repository.backend, provider, repository.id, spec.service)
    if check:
        try:
            provider.index_key()
            made_keys = False
        except KeyAccessError:
            made_keys = True
    else:
        made_keys = provider.ensure()
        provider.index_key()
    made = [word for word, yes in (("repository", made_repository), ("keys", made_keys)) if yes]
    for name in list(spec.places())[1:]:
        place = spec.places()[name]
        if repository is None or Repository.is_new(place):
            made.append(f"copy {name}")
        if repository is not None and not check:
            Repository.open_copy(repository, place)
    about = {"id": repository.id if repository else None, "url": spec.repository["url"]}
    return {"changed": bool(made), "made": made, "repository": about}


def capture(spec: Spec, run: dict[str, Any], mode: str) -> dict[str, Any]:
    """Capture under the lease; as capture_service()."""
    from .capture import capture_service

    told = _whole_run(spec, run, "capture", "captured", lambda progress: capture_service(spec, run, mode, progress))
    if run.get("verb") == "backup" and spec.repository.get("copies"):
        from .copy import after_backup

        with shown_progress(spec, "copy") as progress:  # the service is free again meanwhile
            told["warnings"] = [*told["warnings"], *after_backup(spec, run, progress)]
    return told


def copy(spec: Spec, run: dict[str, Any], to: list[str], origin: str, check: bool, repair: bool = False) -> dict[str, Any]:
    """Bring copies up to date, or repair a repository; as copy_service(), with ``check`` as preview()."""
    from . import copy as module

    if check:
        return module.preview(spec, to, origin)
    with shown_progress(spec, "copy") as progress:
        return module.copy_service(spec, run, progress, to, origin, repair=repair)


def _whole_run(spec: Spec, run: dict[str, Any], phase: str, verdict: str, work: Callable[[Progress], dict[str, Any]]) -> dict[str, Any]:
    """A run that is one call: under the lease, with its verdict at the end, and the ledger copied into the repository."""
    ledger = Ledger.for_spec(spec)
    with lease.hold(spec, ledger, run, phase), shown_progress(spec, phase) as progress:
        try:
            told = work(progress)
        except Exception as error:
            with contextlib.suppress(LifeboatError):  # with a full disk the run stays unfinished, and the next one says so
                measured.note(ledger, run, "failed", given=progress.meter.told(), error=error, phase=phase)
                lease.release(spec, ledger, run, "failed", {"message": str(error)})
            history.publish(spec, ledger)
            raise
        measured.note(ledger, run, verdict, given=progress.meter.told())
        lease.release(spec, ledger, run, verdict)
        return {**told, "warnings": [*told["warnings"], *history.publish(spec, ledger)]}


def publish_journal(spec: Spec, run: dict[str, Any], text: str, check: bool) -> dict[str, Any]:
    """Sign and publish a run's sealed journal; as journals.publish(). In check mode nothing is done."""
    from . import journals

    return {"changed": True, "warnings": []} if check else journals.publish(spec, str(run["id"]), text)


def extract(spec: Spec, run: dict[str, Any], request: Request, check: bool) -> dict[str, Any]:
    """Move a part of a snapshot into the live store under a new name; with ``check`` say what would be done."""
    from .extract import extract_service, preview

    if check:
        return preview(spec, run, request)
    return _whole_run(spec, run, "extract", "verified", lambda progress: extract_service(spec, run, request, progress))


def rotate(spec: Spec, run: dict[str, Any], new_version: bool, check: bool) -> dict[str, Any]:
    """A new version of the data key, and everything wrapped under the newest; as rotate_service()."""
    from .rotate import preview_rotation, rotate_service

    if check:
        return preview_rotation(spec, new_version)
    return _whole_run(spec, run, "rotate", "verified", lambda progress: rotate_service(spec, run, progress, new_version))


def describe_keys(spec: Spec) -> dict[str, Any]:
    """The versions of the data key and what is wrapped under them; as describe()."""
    from .rotate import describe

    return describe(spec)


def retire(spec: Spec, run: dict[str, Any], version: str, check: bool) -> dict[str, Any]:
    """Retire old versions of the data key; as retire_version()."""
    from .rotate import retire_version

    if check:
        return retire_version(spec, run, version, True)
    return _whole_run(spec, run, "rotate", "verified", lambda _progress: {"warnings": [], **retire_version(spec, run, version, False)})


def shred(spec: Spec, run: dict[str, Any], confirm: str, reason: str, check: bool) -> dict[str, Any]:
    """Destroy the service's keys for ever; as shred_service()."""
    from .shred import shred_service

    if check:
        return shred_service(spec, run, confirm, reason, True)
    return _whole_run(spec, run, "rotate", "verified", lambda _progress: shred_service(spec, run, confirm, reason, False))


def exchange_credential(spec: Spec, run: dict[str, Any], kind: str, which: str, role_name: str, check: bool) -> dict[str, Any]:
    """A new secret in the place of one that the service's entry names by its file: {"changed", "file", "warnings"}.

    kind: secret_id (``which``: auth, restore_auth or rotate_auth) or password (``which``: a source).
    """
    from ..credentials.exchange import Exchange

    if kind == "secret_id":
        from ..credentials import secret_id

        exchange: Exchange = secret_id.exchange(spec.keys, spec.service, which, role_name)
    else:
        from ..credentials import postgresql_password

        source, config = spec.source(which)
        if not source.type.startswith("postgresql"):
            raise ConfigError(f"the password of a source of type {source.type} cannot be exchanged here", f"{spec.service}.{which}", "change it by hand")
        exchange = postgresql_password.exchange(config, f"{spec.service}.{which}")
    if check:
        exchange.check()
        return {"changed": True, "file": exchange.path}

    def work(_progress: Progress) -> dict[str, Any]:
        ledger = Ledger.for_spec(spec)
        about = {"kind": kind, "of": which, "file": exchange.path}
        ledger.append(run, "rotate", "credential.intent", about)
        exchange.run()
        ledger.append(run, "rotate", "credential.done", about)
        return {"changed": True, "file": exchange.path, "warnings": []}

    return _whole_run(spec, run, "rotate", "verified", work)


def preflight_capture(spec: Spec) -> dict[str, Any]:
    """What would keep a capture from working: {"changed": a capture would write, "findings", "ok"}."""
    from . import capture as module

    findings = module.preflight_capture(spec) if spec.source_names else []
    errors = [finding for finding in findings if finding["level"] == "error"]
    return {"changed": bool(spec.source_names), "findings": findings, "ok": not errors, "snapshots": []}


def hold(spec: Spec, run: dict[str, Any], target: str, state: str, reason: str, check: bool) -> dict[str, Any]:
    """Set or clear a legal hold; as hold_service()."""
    from .hold import hold_service

    return hold_service(spec, run, target, state, reason, check)


def holds(spec: Spec) -> dict[str, Any]:
    """The legal holds of a service; as list_holds()."""
    from .hold import list_holds

    return list_holds(spec)


def verify(spec: Spec, target: str, depth: str, origin: str = "") -> dict[str, Any]:
    """Verify stored snapshots in the repository, or in the copy ``origin``; as verify_service()."""
    from .verify import verify_service

    return {**verify_service(spec.at(origin), target, depth, Progress(spec.service, "verify")), "changed": False}


def snapshots(spec: Spec, target: str | None = None) -> dict[str, Any]:
    """Snapshots and points, and with a target the point it means as "resolved"."""
    from .copy import overdue
    from .inspect import list_snapshots
    from .resolve import resolve_target

    if not spec.source_names:
        return {"snapshots": [], "points": [], "warnings": [], "resolved": None}
    told = {**list_snapshots(spec), "resolved": None}
    told["warnings"] = [*told["warnings"], *overdue(spec)]
    if target:
        told["resolved"] = resolve_target(spec, spec.reading_store(), target)[0].as_dict()
    return told


def set_state(spec: Spec, run: dict[str, Any], wanted: str, target: str, which: str, options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Bring the service's data to a state: staged, live, rolled_back or committed. ``options``: force, depth, accept.

    With ``check`` nothing is changed: staged and live answer with preflight's findings, the others with what they would do.
    """
    from . import restore

    force = bool(options.get("force"))
    before = restore.current_state(spec)
    if wanted in ("staged", "live"):
        if check:
            told = restore.preflight(spec, target, run, str(options.get("depth") or "exists"), force, tuple(options.get("accept") or ()))
            told = {**told, "noop": told["data_current"], "sources": {}}
            point = told["point"] or {}
            return {**told, "diff": _diff(before, {"point": point.get("id"), "snapshots": point.get("snapshots") or {}}, wanted)}
        act = restore.stage if wanted == "staged" else restore.go_live
        with shown_progress(spec, "stage" if wanted == "staged" else "cutover") as progress:
            told = act(spec, target, run, force, progress)
    else:
        verb = "rollback" if wanted == "rolled_back" else "commit"
        if check:
            told = restore.predict(spec, run, verb, which)
        else:
            with shown_progress(spec, verb) as progress:
                told = (restore.roll_back if verb == "rollback" else restore.commit)(spec, run, which, progress)
    return {**told, "findings": [], "diff": _diff(before, restore.current_state(spec), wanted)}


def _diff(before: dict[str, Any], after: dict[str, Any], wanted: str) -> dict[str, Any]:
    return {"before": before, "after": {**after, "digests": after.get("digests", {})}, "before_header": "live data", "after_header": f"live data, {wanted}"}


def check(spec: Spec, phase: str, wait: float | None, warm: bool = False) -> dict[str, Any]:
    """Health and invariants; ``wait`` None takes the entry's policy.health.timeout. ``warm``: make the service's warm-up requests too."""
    if wait is None:
        wait = policy.of(spec.entry, "health").timeout
    return {**checks.run(spec, phase, wait, warm=warm), "changed": False}


def known(spec: Spec, run_id: str = "") -> dict[str, Any]:
    """What the host knows of a service without repository and keys.

    {"lease", "unfinished", "restores": newest last, with bytes held, "since": the time from which on it has them all,
    "attempts": as history.attempts(), "uncommitted": their ids, "held_bytes", "origin", "proof", "progress", "ledger_state", "ledger": the entries of
    ``run_id`` ("last": of the newest run), "logs": source -> what is remembered of its log}.
    """
    ledger = Ledger.for_spec(spec)
    condition = ledger.verify()
    entries = ledger.entries()
    restores = fold(entries)
    shown = []
    for one in restores[-20:]:
        held = {source.name: held_bytes(source) for source in one.cut} if one.holds else {}
        shown.append({**one.state(), "holds": one.holds, "held": held, "held_bytes": sum(value or 0 for value in held.values())})
    proofs = (state.read_json(spec.path("proofs.json")) or {}).get("points") or {}
    proof = max(proofs.items(), key=lambda item: str(item[1].get("time")), default=None)
    if run_id == "last" and entries:
        run_id = str(entries[-1]["run"])
    begin = lease.unfinished(ledger)
    since = shown[0]["time"] if len(restores) > len(shown) else entries[0]["time"] if entries else ""
    return {
        "changed": False, "lease": lease.read(spec), "unfinished": {"run": begin["run"], "verb": begin["verb"], "since": begin["time"]} if begin else None,
        "restores": shown, "since": str(since), "attempts": history.attempts(entries), "uncommitted": [one["restore"] for one in shown if one["holds"]],
        "held_bytes": sum(one["held_bytes"] for one in shown),
        "origin": state.read_json(spec.path("origin.json")), "proof": {"point": proof[0], **proof[1]} if proof else None,
        "progress": _progress(spec), "ledger_state": condition, "ledger": [entry for entry in entries if entry["run"] == run_id] if run_id else [],
        "sources": spec.source_names, "host_state": spec.service_dir, "logs": _logs(spec),
    }


def recorded(spec: Spec) -> dict[str, Any]:
    """The runs on record of a service, from repository and host; as history.of_host()."""
    return history.of_host(spec)


def _logs(spec: Spec) -> dict[str, Any]:
    if not any(source.get("log") is not None for source in (spec.entry.get("sources") or {}).values()):
        return {}
    from ..log import config as log_config
    from ..log import status as log_status

    found = {}
    for source in log_config.names(spec):
        with contextlib.suppress(LifeboatError):
            found[source] = log_status.remembered(spec, source)
    return found


def _progress(spec: Spec) -> dict[str, Any] | None:
    with contextlib.suppress(LifeboatError):
        return state.read_json(spec.path("progress.json"))
    return None  # caught in the middle of being replaced


def rebuild_index(spec: Spec, run: dict[str, Any]) -> dict[str, Any]:
    """Build the host's chunk index anew from the repository's indexes and, where those are damaged, packs; {"packs", "findings"}."""
    import os

    from ..repository.index import ChunkIndex

    if not spec.source_names:
        return {"packs": 0, "findings": [], "changed": False}
    ledger = Ledger.for_spec(spec)
    with lease.hold(spec, ledger, run, "index"):
        store = spec.store()
        state.ensure_private(spec.path("cache"))
        path = os.path.join(spec.path("cache"), f"chunks-{store.repository.id}.sqlite")
        for name in (path, path + "-wal", path + "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # a cache: nothing is lost with it
        index = ChunkIndex(path)
        try:
            damaged = index.refresh(store.backend, spec.service, store.index_key)
            packs = len(index.live)
        finally:
            index.close()
        lease.release(spec, ledger, run, "skipped")
    return {"packs": packs, "findings": [{"level": "warning", **error.as_dict()} for error in damaged], "changed": True}


def conclude(spec: Spec, run: dict[str, Any], verdict: str, message: str, check: bool, told: dict[str, Any] | None = None) -> dict[str, Any]:
    """Record a verdict, unless in check mode; ``told``: what the run measured on the service."""
    from . import restore

    if verdict not in restore.VERDICTS:
        raise ConfigError(f"unknown verdict {verdict!r}", spec.service, f"use one of: {', '.join(restore.VERDICTS)}")
    return {"verdict": verdict} if check else restore.mark_verified(spec, run, verdict, message, told)
