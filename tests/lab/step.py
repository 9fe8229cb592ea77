# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one method of a source on a pickled double of a snapshot, so that a fault can kill the process that does it."""

from __future__ import annotations

import pickle
import sys

from ansible_collections.lifeboat.recovery.plugins.module_utils.progress import Progress
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import registry
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Context
from ansible_collections.lifeboat.recovery.tests.doubles.memory_store import MemoryReader, MemoryStore, MemoryWriter


def main(bundle: str, verb: str) -> None:
    """verb: a method of the source."""
    with open(bundle, "rb") as handle:
        state = pickle.load(handle)
    store = MemoryStore(state["key"])
    store.chunks = state["chunks"]
    source = registry.get(state["config"]["type"])()
    context = Context("shop", "data", state["config"], state["work"], Progress("shop", verb), state["key"], 2)
    if verb in ("stage", "verify_staged"):
        getattr(source, verb)(context, MemoryReader(store, state["ids"], state["lines"], state["manifest"]), state["record"])
        if verb == "stage":
            source.settle(context, state["record"])
    elif verb == "capture":
        source.capture(context, MemoryWriter(store))
    else:
        getattr(source, verb)(context, state["record"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
