# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The services of an inventory, or why there are none: a play without hosts ends in success, and a restore must not."""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

from . import model
from .problems import display_path

GROUP = "lifeboat_services"


def services(groups: Mapping[str, Sequence[str]], sources: Sequence[str]) -> list[str]:
    """The hosts of the catalog. ConfigError says why there are none, or that one of several catalogs was dropped on the way.

    sources: what was given after ``-i``. Whatever Ansible made of a catalog that it could not read, it is read here once more for its faults.
    """
    hosts = [str(host) for host in groups.get(GROUP) or ()]
    files = _catalogs(sources)
    if hosts and len(files) < 2:
        return hosts
    for file in files:
        model.load(file)  # its own faults are the best answer
    if hosts:
        return hosts
    if files:
        raise ConfigError(
            "Ansible did not read the catalog", display_path(files[0]),
            "put lifeboat.recovery.catalog, host_list, auto, yaml, ini into enable_plugins of [inventory] in ansible.cfg",
        )
    where = ", ".join(display_path(source) if "/" in source else source for source in sources) or "none was given"
    raise ConfigError("no services in this inventory", where, "give the catalog with -i; its name ends in .catalog.yml")


def _catalogs(sources: Sequence[Any]) -> list[str]:
    """The catalog files among inventory sources, those in inventory directories too."""
    found = []
    for source in map(str, sources):
        if os.path.isdir(source):
            found += [os.path.join(source, name) for name in sorted(os.listdir(source)) if name.endswith(model.SUFFIXES)]
        elif source.endswith(model.SUFFIXES):
            found.append(source)
    return list(dict.fromkeys(os.path.abspath(file) for file in found))
