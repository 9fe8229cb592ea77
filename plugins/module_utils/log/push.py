# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""``lifeboat log push``: one complete segment or history file into the repository, for a server's archive_command."""

from __future__ import annotations

import os
import time

from ..errors import ConfigError, LifeboatError
from ..repository.log_index import load
from ..repository.log_writer import LogWriter
from ..spec import Spec
from . import config, proven, wal
from .shipping import Shipping
from .spool import Spool, SpoolFile


def push(spec: Spec, source: str, path: str) -> str:
    """Ship one file and return what became of it. Whoever is told success may delete the file: it is proven in the repository.

    The calls of one server come one after another; each begins an epoch of its own, since a data key lives in memory only.
    Raises LifeboatError: the server keeps the file and asks again.
    """
    settings = config.read(spec, source)
    config.prepare(settings, spec)
    name = os.path.basename(path)
    if name.endswith((".backup", ".partial")):
        return f"{name}: not needed"  # snapshots carry their own labels; a partial segment is whole on the next timeline
    path = os.path.abspath(path)
    with open(path, "rb") as handle:
        found = wal.header(handle.read(wal.PAGE))
    parsed = wal.parse_segment(name, found.segment_size) if found else None
    timeline = wal.parse_history(name)
    if timeline is None and (found is None or parsed is None):
        raise ConfigError("not a segment of a log", path, "write: archive_command = 'lifeboat log push SERVICE SOURCE %p'")
    one = SpoolFile(path, *(parsed or (timeline or 0, 0)), complete=True, received=False)
    spool = Spool(settings.spool)
    spool.lock()
    try:
        return _ship(spec, source, settings.directory, spool, one, found)
    finally:
        spool.unlock()


def _ship(spec: Spec, source: str, directory: str, spool: Spool, one: SpoolFile, found: wal.Header | None) -> str:
    store = spec.store()
    state_file, url = os.path.join(directory, "proven.json"), str(spec.repository["url"])
    mark = proven.read(state_file, url)
    if found and mark.system and mark.system != found.system:
        raise ConfigError("the segment belongs to another cluster than the log", one.path, "give this cluster a source of its own")
    if mark.repository not in ("", store.repository.id):
        mark = proven.Proven()
    mark.repository = store.repository.id
    if found:
        mark.system, mark.segment_size = found.system, found.segment_size

    def history(timeline: int) -> bytes:
        place = os.path.join(os.path.dirname(one.path), f"{timeline:08X}.history")
        try:
            with open(place, "rb") as handle:
                return handle.read(1 << 20)
        except OSError as error:
            raise LifeboatError(f"the history of timeline {timeline} cannot be read ({error.strerror})", place, "it lies beside the segments") from error

    shipping = Shipping(spool, LogWriter(store, source), lambda: load(store.backend, store.provider, store.repository.id, spec.service, source),
                        mark, lambda kept: proven.write(state_file, url, kept), history, lambda: None, lambda: config.restored_at(spec, source))
    begun = time.monotonic()
    try:
        if found:
            shipping.push(one)
        elif mark.system:
            shipping.begin(one.timeline)  # a history file: the epoch of its timeline begins with it
    finally:
        shipping.close()
    return f"{os.path.basename(one.path)}: proven in the repository in {time.monotonic() - begun:.2f} s"
