# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The use of the escrow key is never silent: it stands in the ledger, and the run says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..keys.escrow import EscrowProvider

if TYPE_CHECKING:
    from ..ledger import Ledger
    from ..repository.repository import ServiceStore
    from ..spec import Spec


def escrow_used(spec: Spec, store: ServiceStore, ledger: Ledger, run: dict[str, Any]) -> list[str]:
    """Note it in the ledger and return it as warnings; nothing where keys come from their provider."""
    provider = store.provider
    if not isinstance(provider, EscrowProvider):
        return []
    record = provider.record
    ledger.append(run, "stage", "escrow.used", {"recipient": provider.recipient, "record": record.name, "self_signed": record.self_signed})
    warnings = [
        f"the keys come from escrow (key {provider.recipient}): service {spec.service}; bring the key provider back, nothing can be captured without it",
    ]
    if record.self_signed:
        warnings.append(
            f"signatures were checked with the keys that the repository itself names: {record.name}; whoever could write all of it could have replaced "
            "all of it: put the public signing keys into keys.path to be certain"
        )
    return warnings
