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


def escrow_used(spec: Spec, store: ServiceStore, ledger: Ledger, run: dict[str, Any]) -> list[dict[str, str]]:
    """Note it in the ledger and return it as warnings; nothing where keys come from their provider."""
    provider = store.provider
    if not isinstance(provider, EscrowProvider):
        return []
    record = provider.record
    ledger.append(run, "stage", "escrow.used", {"recipient": provider.recipient, "record": record.name, "self_signed": record.self_signed})
    warnings = [{
        "code": "key", "what": f"the keys come from escrow (key {provider.recipient})", "where": f"service {spec.service}, {record.name}",
        "remedy": "bring the key provider back; what is captured meanwhile needs it",
    }]
    if record.self_signed:
        warnings.append({
            "code": "key", "what": "the signatures were checked with keys that the repository itself names", "where": record.name,
            "remedy": "whoever could write all of the repository could have replaced all of it; put the public signing keys into keys.path to be certain",
        })
    return warnings
