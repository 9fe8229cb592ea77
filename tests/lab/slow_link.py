# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A way to a server that is as wide as one likes: a TCP proxy on loopback that lets so many bytes a second through to its clients."""

from __future__ import annotations

import asyncio
import threading

_PIECE = 16 << 10


class SlowLink:
    """Forwards a free port to ``port``. rate: bytes per second to all clients together, 0 for as fast as it goes; it may be changed at any time."""

    def __init__(self, port: int, rate: float = 0.0) -> None:
        self.rate = rate
        self.port = 0
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._free = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow link", daemon=True)

    def __enter__(self) -> SlowLink:
        self._thread.start()
        if not self._ready.wait(60):
            raise RuntimeError("the slow link does not start")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._copy(reader, far_writer, False), self._copy(far_reader, writer, True))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, paced: bool) -> None:
        try:
            while data := await reader.read(_PIECE):
                if paced and self.rate:
                    # one time-line for all connections: each piece takes its seconds of it
                    self._free = max(self._free, self._loop.time()) + len(data) / self.rate
                    await asyncio.sleep(self._free - self._loop.time())
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one side has gone; the other is told
        finally:
            writer.close()
