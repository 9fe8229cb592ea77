# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which provider a catalog's ``keys`` entry means. The set is closed: one function and one line in PROVIDERS each.

A new provider is a module in this directory with a class ``(config, service)`` that implements ``provider.KeyProvider``, a
function and a line here. The imports are written out because Ansible finds what to ship with a module by reading them; they
stand inside functions so that a run pays only for the provider it uses.
"""

from __future__ import annotations

import resource
from typing import Any, Callable

from ..errors import ConfigError
from .provider import KeyProvider


def _file() -> Callable[[dict[str, Any], str], KeyProvider]:
    from .file import FileProvider

    return FileProvider


def _vault() -> Callable[[dict[str, Any], str], KeyProvider]:
    from .vault import VaultProvider

    return VaultProvider


#: name in the catalog -> what imports its class
PROVIDERS: dict[str, Callable[[], Callable[[dict[str, Any], str], KeyProvider]]] = {
    "file": _file,
    "vault": _vault,
}


#: Options that go with every provider: the escrow key (public), and the file of its private half where a restore uses it (spec.Spec.provider).
ESCROW = ("escrow", "escrow_key")


def provider_for(keys_config: dict[str, Any], service: str) -> KeyProvider:
    """The key provider of one service; ConfigError for an unknown provider or bad options. Touches nothing yet."""
    name = keys_config.get("provider") if isinstance(keys_config, dict) else None
    if name not in PROVIDERS:
        raise ConfigError(
            f"unknown key provider {name!r}", f"keys of service {service}", f"keys.provider is one of: {', '.join(sorted(PROVIDERS))}",
        )
    _leave_no_core()
    own = {key: value for key, value in keys_config.items() if key not in ESCROW}
    provider = PROVIDERS[name]()(own, service)
    if keys_config.get("escrow"):
        from .escrow import public_key

        provider.escrow_public = public_key(str(keys_config["escrow"]))
    return provider


def _leave_no_core() -> None:
    """A process that opens keys must not leave them in a core dump when it crashes. 1, and not 0: the kernel then gives none to a pipe either."""
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (1 if most == resource.RLIM_INFINITY else min(1, most), most))
