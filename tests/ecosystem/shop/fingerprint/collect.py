# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The independent truth about a shop's content: taken with the stores' own tools, never with what is being tested."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..layout import CLUSTERS, Home
from . import cache, files, postgres

VERSION = 1


def fingerprint(home: Home) -> dict[str, Any]:
    """Everything, per store; a store that is down or gone is said to be absent."""
    with ThreadPoolExecutor(2) as pool:
        clusters = {name: pool.submit(postgres.cluster, home, name) for name in CLUSTERS}
        tree = pool.submit(files.tree, str(home.invoices))
        redis = pool.submit(cache.keys, home)
        return {
            "version": VERSION, "postgresql": {name: future.result() for name, future in clusters.items()},
            "files": {"invoices": tree.result()}, "redis": redis.result(),
        }
