# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The options that all modules share; their twin is module_utils/arguments.py."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  service:
    description:
      - Name of the service.
    type: str
    required: true
  entry:
    description:
      - The service's normalised catalog entry. The catalog inventory sets it as C(lifeboat_entry); on an ordinary inventory host give it as a variable.
      - The module uses C(sources), C(runtime.status), C(health), C(schema), C(invariants), C(prewarm) and C(policy).
    type: dict
    required: true
  repository:
    description:
      - Where the snapshots of the service live, C(url) and, where it has one, C(name).
      - C(copies) lists further repositories, each as this one, that hold copies; what is lost or damaged here is read from there.
    type: dict
    required: true
  keys:
    description:
      - The key provider, C(provider) (V(file) or V(vault)) and its options.
    type: dict
    required: true
  state_dir:
    description:
      - Absolute path of the state directory on the host.
      - Empty means V(/var/lib/lifeboat) for root and V(~/.local/state/lifeboat) for other users.
    type: str
    default: ""
  catalog:
    description:
      - C(digest), C(ecosystem) and C(document) of the catalog. They are kept with every snapshot.
    type: dict
    default: {}
  run:
    description:
      - The run this call belongs to, as role P(lifeboat.recovery.run#role) makes it, C(id), C(verb), C(controller), C(boot), C(pid),
        C(pid_started), C(user), C(started) and C(resumes).
      - Calls with the same C(id) belong together. Empty makes a run for this one call.
    type: dict
    default: {}
requirements:
  - Python 3.9 or later on the host
  - blake3, cryptography, zstandard
author:
  - Lifeboat contributors (@lifeboat-recovery)
"""

    CHANGES = r"""
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: linux
"""

    READS = r"""
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - This module changes nothing.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: linux
"""

    GATE = r"""
options:
  gate:
    description:
      - A gate to wait at before anything is done, in the same task. Needs a O(run) with its directory. Where it does not open, the call fails
        as M(lifeboat.recovery.gate) does, and nothing is done. In check mode it is open.
    type: dict
    suboptions:
      waits:
        description:
          - As O(lifeboat.recovery.gate#module:waits).
        type: str
        choices: [requirements, island_staged, dependants_stopped]
        required: true
      timeout:
        description:
          - As O(lifeboat.recovery.gate#module:timeout).
        type: float
        default: 3600.0
"""
