# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which protections snapshots have, as this host sees them in the repository: never what the catalog promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable

from ..errors import LifeboatError
from ..ledger import now
from ..repository.datakeys import read_key

if TYPE_CHECKING:
    from ..repository.manifest import StoredManifest
    from ..repository.repository import ServiceStore


def observed(store: ServiceStore, manifests: Iterable[StoredManifest]) -> dict[str, dict[str, Any]]:
    """Source -> {"snapshot", "manifest": digest, "keys": [{"provider", "key", "version"}], "signed_by": {"key", "version"}, "locked_until": ISO or None}.

    The manifests' signatures were checked when they were read. What cannot be seen is left out: a control that nobody saw is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        signer = {key: manifest.signature.get(key) for key in ("key", "version")}
        one: dict[str, Any] = {"snapshot": manifest.id, "manifest": manifest.digest, "signed_by": signer}
        try:
            wrapped = [read_key(store.backend, store.service, key_id, manifest.id) for key_id in manifest.data["keys"]]
            names = {(key.provider, key.key, key.version) for key in wrapped}
            one["keys"] = [{"provider": provider, "key": key, "version": version} for provider, key, version in sorted(names)]
            until = store.backend.locked_until(manifest.name)
            one["locked_until"] = until if until and until > now() else None
        except (LifeboatError, FileNotFoundError):
            pass  # whoever needs the object says so; here it was only looked at
        found[str(manifest.data["source"])] = one
    return found
