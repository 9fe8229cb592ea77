# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Redis probe: {redis: [command words], source: name}: asked of the source itself.

A source type that can answer offers ``command(config, words, timeout=seconds)`` and returns the reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .sql import answering

if TYPE_CHECKING:
    from ..spec import Spec


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> Any:
    """The reply to one command; bytes are shown as text."""
    words = entry["redis"]
    if not isinstance(words, list) or not words:
        raise ConfigError("a redis command is a list of words", repr(words), "")
    source, config = answering(spec, entry, "command")
    return source.command(config, [str(word) for word in words], timeout=timeout)  # type: ignore[attr-defined]
