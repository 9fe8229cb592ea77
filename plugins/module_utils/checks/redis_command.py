# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Redis probe: {redis: [command words], source: name}: asked of the source's own server.

A source class that answers commands itself has ``command(config, words, timeout=seconds)``; ADAPTERS does it for types that do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from ..errors import ConfigError
from .sql import answering

if TYPE_CHECKING:
    from ..spec import Spec


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> Any:
    """The reply to one command; bytes are shown as text."""
    words = entry["redis"]
    if not isinstance(words, list) or not words:
        raise ConfigError("a redis command is a list of words", repr(words), "")
    name, source, config = answering(spec, entry, "command", ADAPTERS)
    if hasattr(source, "command"):
        return source.command(config, [str(word) for word in words], timeout=timeout)
    return ADAPTERS[source.type](config, (f"{spec.service}.{name}", [str(word) for word in words]), timeout)


def _redis(config: dict[str, Any], asked: tuple[str, list[str]], timeout: float) -> Any:
    from ..sources.redis_client import Client

    where, words = asked
    link = Client({**config, "timeout": timeout}, where).open()
    try:
        return link.call(*words)
    finally:
        link.close()


ADAPTERS: dict[str, Callable[[dict[str, Any], Any, float], Any]] = {"redis": _redis}
