# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_choice
short_description: Which member of a replicated cluster is the primary, and which one to capture
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - Judges what the members of a service's cluster said. Refuses two servers that take writes, naming both, and servers of different clusters.
positional: _input, entry
options:
  _input:
    description: What the members said, as P(lifeboat.recovery.service_member#module) answers with O(lifeboat.recovery.service_member#module:state=asked).
    type: list
    elements: dict
    required: true
  entry:
    description: The normalised catalog entry of the service.
    type: dict
    required: true
  purpose:
    description:
      - V(capture) chooses what the source's C(capture_from) says, and refuses when there is no primary.
      - V(restore) chooses the primary, and where none answers as one, the host that the catalog names.
      - V(follow) chooses the primary, and refuses when there is none.
      - V(look) is for those that change nothing. It chooses the primary, or else a host that answers, the catalog's first, and refuses nothing.
    type: str
    choices: [capture, restore, follow, look]
    default: capture
  primary:
    description: The member that shall be it whatever the members say, unless two of them take writes.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Work on the member that a capture reads
  ansible.builtin.set_fact:
    lifeboat_data_host: "{{ chosen.host }}"
    lifeboat_entry: "{{ chosen.entry }}"
  vars:
    chosen: "{{ asked.results | lifeboat.recovery.cluster_choice(lifeboat_entry) }}"
"""

RETURN = r"""
_value:
  description: The choice.
  type: dict
  contains:
    host:
      description: The member that is chosen.
      type: str
    entry:
      description: The entry from its place.
      type: dict
    others:
      description: The other members.
      type: list
      elements: str
    silent:
      description: Members that did not answer; nobody knows whether they take writes.
      type: list
      elements: str
    said:
      description: What each member is, one line each.
      type: list
      elements: str
    warnings:
      description: What to know of the others.
      type: list
      elements: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, ConflictError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_members
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import filtered, mapping_in

_SAID = ("role", "system_identifier", "timeline", "position", "receiving", "slot", "standbys")


@filtered
def cluster_choice(answers: Any, entry: Any, purpose: str = "capture", primary: str = "") -> dict[str, Any]:
    """See DOCUMENTATION."""
    service = mapping_in(entry, "the entry")
    hosts = cluster_members.hosts_of(service)
    heard = {str(answer.get("item") or answer.get("host")): answer for answer in answers or []}
    said = []
    for host in hosts:
        answer = heard.get(host) or {}
        failed = answer.get("unreachable") or answer.get("failed") or not answer
        reason = answer.get("msg") or answer.get("error") or "it was not asked"
        said.append({"host": host, "role": None, "error": str(reason)[:200]} if failed else
                    {"host": host, "error": answer.get("error"), **{key: answer.get(key) for key in _SAID}})
    found = cluster_members.judge(said)
    warnings: list[str] = []
    if purpose == "capture" and not primary:
        chosen, warnings = cluster_members.choose(service, said)
    elif purpose == "look":
        warnings = [str(problem) for problem in found["problems"]]
        home = cluster_members.home(service)
        answering = [str(one["host"]) for one in said if one["role"]]
        chosen = primary or found["primary"] or (home if home in answering or not answering else answering[0])
    else:
        if found["problems"]:
            raise found["problems"][0]
        if primary and primary not in hosts:
            raise ConfigError(f"{primary!r} is no member of the cluster", "lifeboat_primary", f"members: {', '.join(hosts)}")
        chosen = primary or found["primary"] or (cluster_members.home(service) if purpose == "restore" else "")
        if not chosen:
            told = ", ".join(f"{one['host']}: {cluster_members.said(one)}" for one in said)
            raise ConflictError("no member of the cluster is a primary", told, "promote or start the one that should be, then run the same command again")
    return {"host": chosen, "entry": cluster_members.entry_at(service, chosen), "others": [host for host in hosts if host != chosen],
            "silent": found["silent"], "said": [f"{one['host']}: {cluster_members.said(one)}" for one in said], "warnings": warnings}


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_choice": cluster_choice}
