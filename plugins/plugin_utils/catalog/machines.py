# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which variables the machines of an inventory have, wherever they are written and whether or not they were read before the catalog.

Only names: values are looked up when they are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Optional

from ansible import context
from ansible.inventory.manager import IGNORED, InventoryManager
from ansible.module_utils.common.text.converters import to_bytes
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog import model


class Machines:
    """inventory: as far as it was read; current: the source that is being read, a catalog."""

    def __init__(self, inventory: Any, loader: Any, current: str) -> None:
        self._inventory, self._loader, self._current = inventory, loader, current
        self._later: Optional[Any] = None

    def defined(self, host: str) -> set[str]:
        """Names of the variables of a machine; none of one that no source knows."""
        machine = self._inventory.hosts.get(host) or self._not_yet_read().hosts.get(host)
        if machine is None:
            return set()
        groups = machine.get_groups()
        found: dict[str, Any] = machine.get_vars()
        for group in groups:
            found = combine_vars(found, group.get_vars())
        # what is written in host_vars and group_vars is merged after the last source only
        sources = [*self._sources(), self._current]
        return set(combine_vars(found, get_vars_from_inventory_sources(self._loader, sources, [machine, *groups], "all")))

    def _sources(self) -> list[str]:
        return [str(source) for source in context.CLIARGS.get("inventory") or []]

    def _not_yet_read(self) -> Any:
        """An inventory of the sources whose turn comes after the catalog's: of those, Ansible knows nothing yet."""
        if self._later is None:
            read = {str(source) for source in self._inventory.processed_sources}
            rest = [path for source in self._sources() for path in _files(source) if path not in read and not path.endswith(model.SUFFIXES)]
            self._later = InventoryManager(loader=self._loader, sources=rest) if rest else InventoryManager(loader=self._loader, parse=False)
        return self._later


def _files(source: str) -> Iterator[str]:
    """The files of an inventory source, in the order in which Ansible reads them."""
    if not os.path.isdir(source):
        yield source
        return
    for name in sorted(os.listdir(to_bytes(source))):
        if not IGNORED.search(name):
            yield from _files(os.path.join(source, os.fsdecode(name)))
