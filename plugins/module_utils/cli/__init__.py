# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The host command ``lifeboat``: status, points, verify and restore of this host's services without Ansible.

The package is module_utils itself under any name: copied to ``<directory>/lifeboat`` it runs as
``PYTHONPATH=<directory> python3 -m lifeboat.cli``. It knows the services that have a file
``<config>/services/<service>.json``, which bootstrap writes (default: /etc/lifeboat for root, else ~/.config/lifeboat). It holds the
specification of one service: {"service", "entry", "repository", "keys", "state_dir", "catalog"}. A host holds the right to seal only: what opens snapshots is
named when it is called (``--keys``).
"""

from __future__ import annotations

from .main import main

__all__ = ["main"]
