# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""How hard chunks are compressed: zstd levels, the fastest of them set up for the pages of databases."""

from __future__ import annotations

from typing import Any

from ..libraries import need

#: What most sources take.
DEFAULT = 3

#: Level 1 of zstd as it is looks for matches from seven bytes on and misses most of what an index page repeats. From five bytes on
#: it is as fast, and stores no more than level 3: of pgbench tables, wide rows and their indexes (docs/benchmarks.md, "Compression").
_FAST = {"window_log": 20, "hash_log": 13, "chain_log": 13, "search_log": 1, "min_match": 5, "target_length": 0, "strategy": 1}


def compressor_of(level: int) -> Any:
    """A zstandard compressor for one thread at a time; level: 1 to 19. Its frames say how long their content is."""
    zstandard = need("zstandard")
    if level == 1:
        return zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(compression_level=1, **_FAST))
    return zstandard.ZstdCompressor(level=level)
