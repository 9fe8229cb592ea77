# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Who runs a run: the operating system's user, Ansible's, and the job and user of AWX.

AWX hands its names to every job as extra variables, ``awx_…`` and the older ``tower_…``, last of all extra variables, so that in a job they are
AWX's word. Outside of AWX anybody can claim them with -e: the user by number stands beside them.
"""

from __future__ import annotations

import os
import pwd
from typing import Any, Mapping

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words

#: What is kept of AWX: our name -> the variable's name after its prefix.
_AWX = {
    "user": "user_name", "job": "job_id", "template": "job_template_name", "launch": "job_launch_type", "workflow": "workflow_job_id",
    "schedule": "schedule_name", "node": "execution_node",
}


def of(variables: Mapping[str, Any], ansible_user: str = "") -> dict[str, Any]:
    """{"os_user", "uid", "sudo_user" or None, "ansible_user" or None, "awx": {user, job, template, …} or None}.

    variables: those given with -e. ansible_user: as whom Ansible connects.
    """
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    awx = {}
    for key, ending in _AWX.items():
        value = variables.get(f"awx_{ending}", variables.get(f"tower_{ending}"))
        if value not in (None, ""):
            awx[key] = words.one_line(value, 120)
    return {
        "os_user": name, "uid": os.getuid(), "sudo_user": words.one_line(os.environ.get("SUDO_USER") or "", 80) or None,
        "ansible_user": words.one_line(ansible_user, 80) or None, "awx": awx or None,
    }


def of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Who as run.json tells it; nulls for a run that kept less."""
    found: Mapping[str, Any] = run["who"] if isinstance(run.get("who"), Mapping) else {}
    return {key: found.get(key) for key in ("os_user", "uid", "sudo_user", "ansible_user", "awx")}


def text(run: Mapping[str, Any]) -> str:
    """Who in one line, as each entry of a journal carries it."""
    found = run.get("who")
    if not isinstance(found, Mapping):
        return f"{run.get('user') or '?'}@{run.get('controller') or '?'}"
    said = f"{found.get('os_user') or '?'}@{run.get('controller') or '?'}"
    if found.get("sudo_user"):
        said += f", sudo of {found['sudo_user']}"
    if found.get("ansible_user"):
        said += f", Ansible as {found['ansible_user']}"
    awx = found.get("awx")
    if isinstance(awx, Mapping):
        said += ", AWX " + " ".join(f"{key} {awx[key]}" for key in _AWX if awx.get(key))
    return words.one_line(said, 400)


def names(run: Mapping[str, Any]) -> list[str]:
    """Every name by which the operator is known here, the strongest first: that of AWX, of the account, of who became it."""
    found: Mapping[str, Any] = run["who"] if isinstance(run.get("who"), Mapping) else {}
    awx: Mapping[str, Any] = found["awx"] if isinstance(found.get("awx"), Mapping) else {}
    return list(dict.fromkeys(str(name) for name in (awx.get("user"), found.get("os_user"), found.get("sudo_user"), run.get("user")) if name))
