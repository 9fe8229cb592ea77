# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The packs that a capture fills: many at once, made durable and read back while the next ones are filled."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from .backend import Backend
from .index import ChunkIndex
from .pack import PACK_TARGET, Located, PackInfo, PackWriter

#: Packs that are made durable at once, and how many full ones may wait for that before those who fill them wait too.
_FINISHING = 2
_WAITING = 2
#: Bytes of a pack that is finished early.
_WORTH = PACK_TARGET // 8


class PackPool:
    """Open packs, one per thread that is storing at this moment; finished ones are durable, read back and in the index."""

    def __init__(
        self, backend: Backend, service: str, data_key: bytes, key_id: str, index_key: bytes, index: ChunkIndex
    ) -> None:
        self._arguments = (backend, service, data_key, key_id, index_key)
        self._index = index
        self.key_id = key_id
        self._lock = threading.Lock()
        self._idle: list[PackWriter] = []
        self._open: set[PackWriter] = set()
        self._threads = ThreadPoolExecutor(_FINISHING, thread_name_prefix="pack")
        self._finishing: deque[Future[None]] = deque()
        self.finished: list[PackInfo] = []
        self.stored = 0

    def add(self, chunk_id: bytes, stored: bytes, plain: int) -> Located:
        """Seal and append one chunk. Also raises what kept an earlier pack from becoming durable."""
        with self._lock:
            pack = self._idle.pop() if self._idle else None
        if pack is None:
            pack = PackWriter(*self._arguments)
            with self._lock:
                self._open.add(pack)
        place = pack.add(chunk_id, stored, plain)
        waited = None
        with self._lock:
            self.stored += place.sealed
            if pack.size < PACK_TARGET:
                self._idle.append(pack)
            else:
                self._finishing.append(self._threads.submit(self._finish, pack))
                if len(self._finishing) > _FINISHING + _WAITING:
                    waited = self._finishing.popleft()
        if waited is not None:
            waited.result()
        return place

    def _finish(self, pack: PackWriter) -> None:
        info = pack.finish()
        self._index.add([info])
        with self._lock:
            self._open.discard(pack)
            self.finished.append(info)

    def settle(self) -> None:
        """Begin to make durable what is worth a pack of its own."""
        with self._lock:
            for pack in [pack for pack in self._idle if pack.size >= _WORTH]:
                self._idle.remove(pack)
                self._finishing.append(self._threads.submit(self._finish, pack))

    def finish(self) -> None:
        """Make every open pack durable; nobody may add any more."""
        while self._idle:
            self._finishing.append(self._threads.submit(self._finish, self._idle.pop()))
        while self._finishing:
            self._finishing.popleft().result()
        self._threads.shutdown(wait=True)

    def abort(self) -> None:
        """Forget what is not durable."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for pack in self._open:
            pack.abort()
        self._open.clear()
        self._idle.clear()
        self._finishing.clear()
