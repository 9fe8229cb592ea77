# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which provider a catalog's ``keys`` entry means. The set is closed: one line per provider in PROVIDERS.

A new provider is a module in this directory with a class ``(config, service)`` that implements
``provider.KeyProvider``, and its line here. Providers are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import ConfigError
from .provider import KeyProvider

#: name in the catalog -> (module beside this file, class)
PROVIDERS: dict[str, tuple[str, str]] = {
    "file": ("file", "FileProvider"),
    "vault": ("vault", "VaultProvider"),
}


def provider_for(keys_config: dict[str, Any], service: str) -> KeyProvider:
    """The key provider of one service; ConfigError for an unknown provider or bad options. Touches nothing yet."""
    name = keys_config.get("provider") if isinstance(keys_config, dict) else None
    if name not in PROVIDERS:
        raise ConfigError(
            f"unknown key provider {name!r}", f"keys of service {service}", f"keys.provider is one of: {', '.join(sorted(PROVIDERS))}",
        )
    module, class_name = PROVIDERS[name]
    provider: KeyProvider = getattr(importlib.import_module(f".{module}", __package__), class_name)(keys_config, service)
    return provider
