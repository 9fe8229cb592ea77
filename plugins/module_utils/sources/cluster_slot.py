# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The replication slot through which a cluster's log is shipped."""

from __future__ import annotations

import re
from typing import Any

from .cluster_members import slot_of
from .contract import Context
from .postgresql_client import Client


def slot_name(service: str, source: str, config: dict[str, Any]) -> str:
    """The slot of the catalog, else one made of the names: what PostgreSQL does not allow in it becomes _."""
    return str(config.get("slot") or re.sub(r"[^a-z0-9_]", "_", f"lifeboat_{service}_{source}".lower())[:63])


def keep_log(context: Context, client: Client, parameters: dict[str, Any]) -> None:
    """Make the slots on a server that has just recovered: of the shipper, where its log is to be shipped, and of each standby.

    From here on it keeps the log of the new timeline. Whoever comes later would find the segment with the switch recycled, and a gap.
    parameters: those of the captured server; one without slots would not start with one.
    """
    slots = [slot_name(context.service, context.source, context.config)] if context.config.get("log") is not None else []
    slots += [slot_of(member) for member in context.config.get("members") or []]
    if not slots or str(parameters.get("max_replication_slots", "1")) == "0":
        return
    connection = client.connect(client.database)
    try:
        for slot in slots:
            client.rows(connection, "SELECT pg_create_physical_replication_slot(%s, true)", (slot,))
    finally:
        connection.close()
