# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: restore_plan
short_description: What a restore would do
version_added: "0.1.0"
author:
  - Lifeboat contributors (@lifeboat)
description:
  - Picks services, widens the pick, puts it in order, divides it into islands, resolves the target for each service and forecasts the
    time from measured runs. Reads nothing and changes nothing.
  - Refuses a pick that would tear a consistency group, a scope that needs services outside O(limit) and a target that a service does
    not have, each with the command or the candidates that would work.
positional: _input, points
options:
  _input:
    description: The catalog, as P(lifeboat.recovery.catalog#inventory) sets it in C(lifeboat_catalog).
    type: dict
    required: true
  points:
    description: Service to its points as RV(lifeboat.recovery.snapshot_info#module:points) of the snapshot_info module gives them.
    type: dict
    required: true
  services:
    description: The services to pick, as a list or a comma list. All when neither this nor O(select) is given.
    type: list
    elements: str
  select:
    description:
      - A JMESPath expression over the catalog that gives names of services. There C(services) is a list of entries with a C(name).
      - Needs the Python library jmespath on the controller.
    type: str
  scope:
    description: How to widen the pick.
    type: str
    choices: [service, requirements, group]
    default: service
  limit:
    description: The services that C(--limit) left over, when it was given.
    type: list
    elements: str
  target:
    description: V(latest), V(proven), an ISO 8601 time with a zone, a snapshot id or a point id.
    type: str
    default: latest
  now:
    description: The current time, ISO 8601 with a zone.
    type: str
  history:
    description: Service to its earlier runs, oldest first, each with C(bytes) and C(phases) (phase to seconds). Without it there is no forecast.
    type: dict
  forks:
    description: How many services Ansible works on at once, to say what a small number costs.
    type: int
  dependants:
    description: What happens to live services outside the pick that need a picked one.
    type: str
    choices: [stop, ignore]
  inventory:
    description: What to print after C(-i) in commands.
    type: str
"""

EXAMPLES = r"""
- name: Plan the restore of one service and of what it requires
  ansible.builtin.debug:
    msg: "{{ lifeboat_catalog | lifeboat.recovery.restore_plan(points, services='orders', scope='requirements') }}"
  vars:
    points:
      identity: "{{ hostvars['identity'].snapshots.points }}"
      orders: "{{ hostvars['orders'].snapshots.points }}"
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    picked:
      description: The services in their order.
      type: list
      elements: str
    asked:
      description: The services before the scope widened the pick.
      type: list
      elements: str
    added:
      description: Service to the reason why the scope added it.
      type: dict
    dependants:
      description: Services outside the pick that need a picked one, each with the chain of requirements.
      type: list
      elements: dict
    islands:
      description: The connected components of the pick, each in its order.
      type: list
      elements: list
    services:
      description:
        - Service to its host, island, level, position, what it waits for (C(waits_for)), resolved target (C(resolution)), bytes,
          objective and forecast.
      type: dict
    bytes:
      description: Bytes to bring back.
      type: int
    forecast:
      description: Seconds, null without history, and the reason.
      type: dict
    critical_path:
      description: The chain of services that decides the end, by history or by number of levels.
      type: dict
    skew_seconds:
      description: Seconds between the oldest and the newest point used.
      type: float
    warnings:
      description: What to know before saying yes.
      type: list
      elements: str
"""

from typing import Any, Callable

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import build, pick
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import history as past
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import document_of, filtered, mapping_in, points_in, time_of


@filtered
def restore_plan(catalog: Any, points: Any, services: Any = None, select: str = "", scope: str = "service", limit: Any = None,
                 target: str = "latest", now: Any = None, history: Any = None, forks: Any = None, dependants: str = "",
                 inventory: str = "") -> dict[str, Any]:
    """See DOCUMENTATION."""
    document = document_of(catalog)
    chosen = pick.pick_services(document, services, select or "", scope, None if limit is None else pick.names_of(limit), "restore", inventory)
    known = {str(service): points_in(own) for service, own in mapping_in(points, "points").items()}
    return build.build(document, chosen, known, str(target), time_of(now) if now else None, past.from_services(history or {}),
                       None if forks is None else int(forks), inventory=inventory, dependants=dependants or "")


class FilterModule:
    """Ansible filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"restore_plan": restore_plan}
