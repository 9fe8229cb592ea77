# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Start and stop a service by what its entry says under ``runtime``: a command, or {unit: name}; within the times of its policy.

The one place for it: module service_control and the host command come here. A task file is Ansible's to run.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping

from . import policy
from .checks import expect
from .checks.command import run_argv
from .errors import CheckError, ConfigError, LifeboatError, SourceError

#: Seconds that systemd and a status command may take to say whether something runs.
_STATUS = 60.0


def start(service: str, entry: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Start it, as often as its policy says: {"changed", "tries": [one line for each that failed]}. Raises SourceError or ConfigError."""
    argv = _argv(service, entry, "start")
    if not argv or _active(entry, "start"):
        return {"changed": False, "tries": []}
    step, failed = policy.of(entry, "start"), []

    def note(_tries: int, _pause: float, error: LifeboatError) -> None:
        failed.append(str(error))

    policy.attempts(step, service, lambda: _run(service, argv, "start", step.timeout), note, sleep)
    return {"changed": True, "tries": failed}


def stop(service: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Stop it: {"changed", "tries": []}. One that is down already is fine; SourceError when it is not known to be down."""
    argv = _argv(service, entry, "stop")
    if not argv:
        return {"changed": False, "tries": []}
    try:
        _run(service, argv, "stop", policy.of(entry, "stop").timeout)
    except LifeboatError as error:
        if _down(service, entry):
            return {"changed": False, "tries": []}
        raise SourceError(f"{service} may still run: {error.what}", error.where, "see why, then run the same command again") from None
    return {"changed": True, "tries": []}


def refuse_tasks(service: str, entry: Mapping[str, Any]) -> None:
    """ConfigError where start or stop is a task file."""
    for verb in ("start", "stop"):
        _argv(service, entry, verb)


def _argv(service: str, entry: Mapping[str, Any], verb: str) -> list[str]:
    command = (entry.get("runtime") or {}).get(verb)
    if isinstance(command, dict):
        if not command.get("unit"):
            raise ConfigError(f"runtime.{verb} is a task file, which only Ansible can run", service,
                              "stop the service by hand and add --no-runtime, or use the playbook")
        return ["systemctl", "is-active" if verb == "status" else verb, *(["--quiet"] if verb == "status" else []), str(command["unit"])]
    return [str(word) for word in command or []]


def _active(entry: Mapping[str, Any], verb: str) -> bool:
    """Whether the unit that this would start runs already; of a command nobody knows."""
    command = (entry.get("runtime") or {}).get(verb)
    return isinstance(command, dict) and run_argv(["systemctl", "is-active", "--quiet", str(command["unit"])], _STATUS)[0] == 0


def _down(service: str, entry: Mapping[str, Any]) -> bool:
    """Whether the status command could be run and said no."""
    try:
        argv = _argv(service, entry, "status")
        return bool(argv) and run_argv(argv, _STATUS)[0] != 0
    except LifeboatError:
        return False


def _run(service: str, argv: list[str], verb: str, timeout: float) -> None:
    remedy = "mend what it says, then run the same command again"
    try:
        status, output, errors = run_argv(argv, timeout)
    except CheckError as error:
        told = SourceError(f"the {verb} command {error.what}", f"{service}: {argv[0]}", error.remedy or remedy)
        raise (told.passing() if not error.remedy else told) from None
    if status != 0:
        lines = (errors.strip() or output.strip()).splitlines()
        last = f" ({expect.shown(lines[-1])})" if lines else ""
        raise SourceError(f"the {verb} command ended with exit status {status}{last}", f"{service}: {argv[0]}", remedy).passing()
