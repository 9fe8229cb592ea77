# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The end of a journal: sealed, signed, published next to the data, copied to the second places.

``audit.json`` of the run directory: {"tries": number, "published": {"service", "object"} or null, "copies": [{"where", "required", "ok", "problem"}],
"problems": [text], "done": bool}. It holds what the outside answered; what the journal itself shows (seal, signature) is read from it.
"""

from __future__ import annotations

import os
from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import publics, seal
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError
from ansible_collections.lifeboat.recovery.plugins.module_utils.keys.key_files import read_private
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import copies, files, journal, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

#: So many hosts are asked to sign and publish before it is left to the next run.
TRIES = 3
#: So many of the newest former runs are looked at for a journal that nobody published yet.
PENDING = 20
#: So many former runs a journal names, so that a whole one that is missing is noticed also where runs overlapped.
NAMED = 5

Answer = dict[str, Any]


def state(run: RunDirectory) -> dict[str, Any]:
    """What is known of the way of a journal to the outside."""
    found = files.read_json(run.file("audit.json"))
    fresh: dict[str, Any] = {"tries": 0, "published": None, "copies": [], "problems": [], "done": False}
    return {**fresh, **found} if isinstance(found, dict) else fresh


def _options(run: RunDirectory) -> dict[str, Any]:
    found = run.plan.get("audit")
    return found if isinstance(found, dict) else {}


def close(run: RunDirectory, last: dict[str, Any]) -> None:
    """Write the last entry of a journal and its seal, with the controller's own key where the catalog names one.

    What goes wrong is kept for run.json, never raised: the end of a run is told whatever became of its journal.
    """
    if journal.read(run.file("journal.jsonl")).seal is not None:
        return  # killed between the seal and run.json: what was sealed stands
    key = _options(run).get("key")
    problems = []

    def sign(text: str) -> dict[str, Any]:
        return publics.sign(private, seal.CONTROLLER, text)

    signing = None
    if key:
        try:
            private = read_private(os.path.expanduser(str(key)))
            signing = sign
        except LifeboatError as error:
            problems.append(f"the journal was not signed by the controller: {error}")
    try:
        run.journal().append("sealed", data=last)
        if run.journal().close(str(run.plan.get("ecosystem") or ""), signing) is None:
            problems.append("the journal could not be sealed: it is not whole")
    except LifeboatError as error:
        problems.append(f"the journal could not be sealed: {error}")
    if problems:
        _keep(run, {**state(run), "problems": problems})


def _keep(run: RunDirectory, known: dict[str, Any]) -> None:
    files.replace_json(run.file("audit.json"), known)


def publish(run: RunDirectory, service: str, ask: Callable[[str], Answer], later: bool = False) -> bool:
    """Let the host of a service sign and publish the journal, unless another one did; then send the copies. Whether anything new was learnt.

    ask: calls the module with the text of the journal and gives its answer. Every picked service's host comes here; the first does it,
    and when it cannot, the next ones up to TRIES. later: it was left by a former run, so what was tried in vain is tried once more.
    """
    with files.locked(run.file("audit.lock"), timeout=600):
        known = state(run)
        chain = journal.read(run.file("journal.jsonl"))
        tried = known["published"] or known["tries"] >= TRIES
        if known["done"] or chain.seal is None or (tried and not later):
            return False
        if known["published"]:
            _send(run, known)
            _keep(run, known)
            return True
        with open(run.file("journal.jsonl"), encoding="ascii") as handle:
            answer = ask(handle.read())
        known["tries"] += 1
        if answer.get("failed") or answer.get("unreachable") or not isinstance(answer.get("signature"), dict):
            known["problems"].append(words.one_line(f"{service} did not sign and publish the journal: {answer.get('msg') or 'no answer'}"))
            last = known["tries"] >= min(TRIES, len(run.picked()))
        else:
            run.journal().sign(answer["signature"])
            known.update(published={"service": service, "object": str(answer.get("object"))}, problems=[])
            last = True
        if last:
            _send(run, known)
        _keep(run, known)
        return True


def send(run: RunDirectory, unsigned: bool = True) -> bool:
    """Send the copies of a journal that no host publishes in this run. Whether anything new was learnt.

    unsigned: also without a signature; else such a journal waits for the next run, in which a host may sign it.
    """
    if not _options(run).get("copies"):
        return False
    with files.locked(run.file("audit.lock"), timeout=600):
        known, sealed = state(run), journal.read(run.file("journal.jsonl")).seal
        if known["copies"] or known["tries"] or sealed is None or (sealed.signature is None and not unsigned):
            return False
        _send(run, known)
        _keep(run, known)
        return True


def _send(run: RunDirectory, known: dict[str, Any]) -> None:
    with open(run.file("journal.jsonl"), "rb") as handle:
        data = handle.read()
    sent = {one["where"] for one in known["copies"] if one["ok"]}
    before = [one for one in known["copies"] if one["ok"]]
    wanted = [one for one in _options(run).get("copies") or [] if copies.name_of(one) not in sent]
    known["copies"] = before + [copies.send(one, str(run.run.get("id")), data) for one in wanted]
    known["done"] = bool(known["published"]) and all(one["ok"] for one in known["copies"])


def pending(run: RunDirectory, service: str) -> list[RunDirectory]:
    """Former runs of the same ecosystem beside this one whose journal is sealed and nowhere else yet, and in which the service took part."""
    root = os.path.dirname(run.path)
    found = []
    for name in sorted((name for name in os.listdir(root) if words.RUN_ID.match(name)), reverse=True)[:PENDING]:
        former = RunDirectory(os.path.join(root, name))
        if former.path == run.path or state(former)["done"] or not former.exists() or not former.sealed():
            continue
        same = former.plan.get("ecosystem") == run.plan.get("ecosystem") and service in former.picked()
        if same and journal.read(former.file("journal.jsonl")).seal is not None:
            found.append(former)
    return found


def before(run: RunDirectory, ecosystem: str) -> list[dict[str, str]]:
    """The newest sealed journals beside a run that begins: [{"run", "head"}], for its first entry."""
    found: list[dict[str, str]] = []
    root = os.path.dirname(run.path)
    for name in sorted((name for name in os.listdir(root) if words.RUN_ID.match(name)), reverse=True)[:PENDING]:
        sealed = journal.read(os.path.join(root, name, "journal.jsonl")).seal if len(found) < NAMED and os.path.join(root, name) != run.path else None
        if sealed is not None and sealed.data["ecosystem"] == ecosystem:
            found.append({"run": sealed.data["run"], "head": sealed.data["head"]})
    return found


def shown(run: RunDirectory, chain: journal.Chain) -> dict[str, Any]:
    """The part of run.json: {"sealed", "signed_by": {"key", "version"} or null, "published", "copies", "problems"}."""
    known = state(run)
    signature = chain.seal.signature if chain.seal is not None else None
    return {
        "sealed": chain.seal is not None,
        "signed_by": {key: signature.get(key) for key in ("key", "version")} if isinstance(signature, dict) else None,
        "published": known["published"], "copies": known["copies"], "problems": known["problems"],
    }
