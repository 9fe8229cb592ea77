# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What all modules share: their common options, one way in, and one way out.

The module object is handed in, so tests pass a fake, and this file does not import Ansible.
"""

from __future__ import annotations

import os
from typing import Any, Callable

from . import lease, ledger, resident
from .errors import CheckError, LifeboatError, StorageError
from .meter import usage
from .redact import hidden_values
from .spec import Spec

#: The options of doc fragment lifeboat.recovery.service; both are kept equal by the sanity tests.
COMMON: dict[str, dict[str, Any]] = {
    "service": {"type": "str", "required": True},
    "entry": {"type": "dict", "required": True},
    "repository": {"type": "dict", "required": True},
    "keys": {"type": "dict", "required": True, "no_log": False},
    "state_dir": {"type": "str", "default": ""},
    "catalog": {"type": "dict", "default": {}},
    "run": {"type": "dict", "default": {}},
}

#: What a gate can wait for.
WAITS = ("requirements", "island_staged", "dependants_stopped")

#: The option of doc fragment lifeboat.recovery.service.gate.
GATE: dict[str, Any] = {"type": "dict", "options": {
    "waits": {"type": "str", "choices": list(WAITS), "required": True},
    "timeout": {"type": "float", "default": 3600.0},
}}


def quiet(module_class: Any) -> Any:
    """An AnsibleModule class that does not write its arguments to the target's system log: they may hold a store's password."""
    return type("QuietModule", (module_class,), {"_log_invocation": lambda self: None})


def run_of(params: dict[str, Any], verb: str) -> dict[str, Any]:
    """The run a call belongs to; a complete one of its own when none (or only a part) was given."""
    given = {key: value for key, value in (params.get("run") or {}).items() if value is not None}
    own = lease.new_run(verb)
    if given.get("id"):
        # whoever names a run speaks for its process too; ours is gone in a moment
        own.update(pid=0, pid_started="", boot="", controller="")
    own.update(given)
    own["pid"] = int(own["pid"] or 0)
    return own


Work = Callable[[Spec, "dict[str, Any]", "dict[str, Any]", bool], "dict[str, Any]"]


def perform(module: Any, verb: str, work: Work) -> None:
    """Run ``work(spec, run, params, check_mode)`` and answer with its result, or with one line that says what is wrong.

    Every answer carries ``ledger``: the entries this call wrote.
    """
    params = module.params
    module.no_log_values |= hidden_values({key: params.get(key) for key in ("keys", "entry", "repository")})
    known = {key: params[key] for key in sorted(params) if key == "service" or key not in COMMON}
    written = len(ledger.written)
    try:
        spec = Spec.from_dict(params)
        run = run_of(params, verb)
        known["run"] = run["id"]
        result = work(spec, run, params, bool(module.check_mode))
    except (LifeboatError, OSError) as error:
        told = error if isinstance(error, LifeboatError) else StorageError(
            f"the operating system refused ({error.strerror or error})", os.fsdecode(error.filename or ""), "fix it, then run the same command again"
        )
        _warn(module, told.result.pop("warnings", None) or [])
        resident.learned()
        module.fail_json(
            msg=str(told), error=told.as_dict(), usage=usage(), **told.result, ledger=ledger.written[written:], invocation={"module_args": known}
        )
        return
    warnings = result.pop("warnings", None) or []
    _warn(module, warnings)
    entries = {entry["hash"]: entry for entry in [*(result.pop("ledger", None) or []), *ledger.written[written:]]}
    resident.learned()
    module.exit_json(**{
        "changed": False, **result, "notes": warnings, "run": run["id"], "usage": usage(),
        "ledger": sorted(entries.values(), key=lambda entry: int(entry["seq"])),
        "invocation": {"module_args": known},
    })


def _warn(module: Any, warnings: list[Any]) -> None:
    for warning in warnings:
        module.warn(warning if isinstance(warning, str) else f"{warning.get('what')}: {warning.get('where')}; {warning.get('remedy')}")


def refuse_findings(result: dict[str, Any]) -> dict[str, Any]:
    """The result, unless it holds an error-level finding: then that one, saying how many more there are, and the result with it."""
    errors = [finding for finding in result.get("findings") or [] if finding.get("level") == "error"]
    if not errors:
        return result
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    error = LifeboatError(str(errors[0]["what"]) + more, str(errors[0]["where"]), str(errors[0]["remedy"]), str(errors[0].get("reason", "")))
    error.code = str(errors[0].get("code", "error"))
    raise fail_with(error, result)


def refuse_checks(spec: Spec, result: dict[str, Any]) -> dict[str, Any]:
    """The result of checks, unless one failed: then CheckError that names it, and the result with it."""
    failed = [check for check in result["results"] if not check["ok"]]
    if not failed:
        return result
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    raise fail_with(CheckError(
        f"{failed[0]['kind']} check failed{more}, {failed[0]['name']}: {failed[0]['detail']}", spec.service,
        str(failed[0].get("remedy") or "look at the service's own log, then run the same command again"),
    ), result)


def fail_with(error: LifeboatError, result: dict[str, Any]) -> LifeboatError:
    """An error that carries what was found so far into the module's answer."""
    error.result = {key: value for key, value in result.items() if key not in ("ledger", "msg", "error", "failed")}
    return error
