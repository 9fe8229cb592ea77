# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The outer variables of the verbs: a misspelt one must not quietly turn "stop after staging" into a whole restore."""

from __future__ import annotations

import difflib
from datetime import datetime
from typing import Any, Callable, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from ..catalog.problems import shown

_PREFIX = "lifeboat_"
_WORDS = {"true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n"}


def _one_of(*choices: str) -> Callable[[Any], str]:
    return lambda value: "" if value in choices else f"known are {', '.join(choices)}"


def _boolean(value: Any) -> str:
    return "" if isinstance(value, bool) or str(value).lower() in _WORDS else "write true or false"


def _seconds(value: Any) -> str:
    try:
        return "" if not isinstance(value, bool) and 0 < float(value) < float("inf") else "write seconds"
    except (TypeError, ValueError):
        return "write seconds"


def _moment(value: Any) -> str:
    try:
        zone = datetime.fromisoformat(str(value).replace("Z", "+00:00")).tzinfo
    except ValueError:
        zone = None
    return "" if zone else "write an ISO 8601 time with zone, as 2030-01-31T12:00:00Z"


def _anything(_value: Any) -> str:
    return ""


#: What docs/verbs.md lists; each says what is wrong with a value, "" when nothing is. Empty values mean "not given".
VARIABLES: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys((
        "lifeboat_services", "lifeboat_select", "lifeboat_target", "lifeboat_max_loss", "lifeboat_confirm", "lifeboat_run", "lifeboat_runs",
        "lifeboat_run_dir", "lifeboat_newest", "lifeboat_progress", "lifeboat_job_timeout", "lifeboat_command_path", "lifeboat_config_dir",
        "lifeboat_state_dir", "lifeboat_wait", "lifeboat_approval", "lifeboat_new_hosts", "lifeboat_report_dir",
    ), _anything),
    "lifeboat_scope": _one_of("service", "requirements", "group"),
    "lifeboat_dependants": _one_of("stop", "ignore"),
    "lifeboat_until": _one_of("staged", "cutover"),
    "lifeboat_depth": _one_of("exists", "hash", "decode"),
    "lifeboat_mode": _one_of("auto", "full", "incremental"),
    "lifeboat_protect": _one_of("check", "snapshot"),
    "lifeboat_rto_gate": _one_of("warn", "refuse"),
    "lifeboat_plan_format": _one_of("text", "json"),
    "lifeboat_force": _boolean,
    "lifeboat_log_units": _boolean,
    "lifeboat_partial": _boolean,
    "lifeboat_resident": _boolean,
    "lifeboat_gate_timeout": _seconds,
    "lifeboat_incident_started": _moment,
    "lifeboat_source": _anything,
    "lifeboat_database": _anything,
    "lifeboat_tables": _anything,
    "lifeboat_as": _anything,
    "lifeboat_from": _anything,
    "lifeboat_to": _anything,
    "lifeboat_repair": _boolean,
    "lifeboat_escrow_key": _anything,
    "lifeboat_new_version": _boolean,
    "lifeboat_probe_clients": _boolean,
    "lifeboat_probe_interval": _seconds,
    "lifeboat_probe_limit": _seconds,
    "lifeboat_members": _anything,
    "lifeboat_primary": _anything,
    "lifeboat_lost_members": _anything,
    "lifeboat_discover_seconds": _seconds,
    "lifeboat_strict": _boolean,
}
#: Variables of some verbs: any other would do more than was asked for without a word, such as restore a whole cluster.
_OF_SOME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lifeboat_source", "lifeboat_database", "lifeboat_tables", "lifeboat_as"), ("extract",)),
    "lifeboat_from": ("copy", "verify"),
    "lifeboat_to": ("copy",),
    "lifeboat_repair": ("copy",),
    "lifeboat_new_hosts": ("restore",),
    "lifeboat_new_version": ("rotate_keys",),
    "lifeboat_rto_gate": ("restore",),
    "lifeboat_plan_format": ("restore",),
    "lifeboat_report_dir": ("report", "discover"),
    **dict.fromkeys(("lifeboat_discover_seconds", "lifeboat_strict"), ("discover",)),
    **dict.fromkeys(("lifeboat_probe_clients", "lifeboat_probe_interval", "lifeboat_probe_limit"), ("restore",)),
    "lifeboat_members": ("reseed",),
    "lifeboat_primary": ("restore", "rollback", "commit", "reseed"),
    "lifeboat_lost_members": ("restore",),
}


def check(extra: Mapping[str, Any], values: Mapping[str, Any], verb: str = "") -> list[ConfigError]:
    """What is wrong with the outer variables: names only among ``extra`` (given with -e), ``values`` wherever they were set.

    verb: also whether it knows what was given.
    """
    errors = []
    for name in sorted(name for name in extra if str(name).startswith(_PREFIX) and name not in VARIABLES):
        close = difflib.get_close_matches(name[len(_PREFIX):], [known[len(_PREFIX):] for known in VARIABLES], n=1, cutoff=0.6)
        errors.append(ConfigError(f'unknown variable "{shown(name)}"', "-e",
                                  f'did you mean "{_PREFIX}{close[0]}"?' if close else "docs/verbs.md lists the variables of the verbs"))
    for name, judge in VARIABLES.items():
        value = values.get(name)
        wrong = judge(value) if value not in (None, "") else ""
        if wrong:
            errors.append(ConfigError(f'{name} has an unknown value "{shown(str(value))}"', name, wrong))
        only = _OF_SOME.get(name, (verb,))
        if verb and verb not in only and value not in (None, ""):
            errors.append(ConfigError(f"{verb} takes no {name}", name, f"it is for {' and '.join(only)}; leave it out to {verb} the whole service"))
    if verb == "extract" and values.get("lifeboat_database") in (None, ""):
        errors.append(ConfigError("extract needs the name of a database", "lifeboat_database", "add -e lifeboat_database=NAME"))
    return errors
