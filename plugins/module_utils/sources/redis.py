# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""A Redis server: captured as an RDB dump, checked by loading it into a private server, restored with the server down."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from ..errors import ConfigError, SourceError
from . import redis_digest as digest
from . import redis_preflight as preflight
from .contract import Captured, Comparison, Context, Finding, Footprint, Reader, Source, TreeReader, Writer
from .redis_capture import Capture
from .redis_client import TLS_OPTIONS, Client, ServerDown
from .redis_stage import Stage, make_directory
from .redis_swap import Swap, side_path
from .server import Server


class Redis(Source):
    """See the module's text. For Redis 7 and newer."""

    type: ClassVar[str] = "redis"
    options: ClassVar[dict[str, dict[str, Any]]] = {
        "address": {"type": "str", "default": "127.0.0.1", "help": "Address of the server as seen from the source's host."},
        "port": {"type": "int", "default": 6379, "help": "Port of the server."},
        "socket": {"type": "path", "help": "The server's socket; used instead of address and port."},
        "user": {"type": "str", "help": "Name of an ACL user; default: the default user."},
        "password_file": {"type": "path", "help": "File whose first line is the password."},
        **TLS_OPTIONS,
        "directory": {"type": "path", "help": "The server's data directory on the source's host; default: what the server says, or said at capture."},
        "program": {"type": "path", "help": "The redis-server program that loads dumps to check them; default: the one that runs, or from the PATH."},
        "timeout": {"type": "int", "default": 3600, "help": "Seconds that saving or loading the data may take."},
    }

    def preflight_capture(self, context: Context) -> list[Finding]:
        return preflight.capture(_client(context), context.config)

    def capture(self, context: Context, writer: Writer) -> Captured:
        return Capture(context, _client(context)).run(writer)

    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        return preflight.restore(_client(context), _server(context), context.config, manifest, context.clock)

    def footprint(self, context: Context, manifest: dict[str, Any]) -> Footprint:
        directory, needs = preflight.needs(_client(context), context.config, manifest)
        return Footprint(os.path.realpath(directory) if directory else "", needs=needs)

    def plan_stage(self, context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        settings = preflight.live_settings(_client(context), context.config, manifest["facts"])
        directory = settings["directory"]
        if not directory:
            raise ConfigError("the data directory is not known", f"{context.service}.{context.source}", "set directory on this source")
        return {
            "stage_id": stage_id, "directory": directory, "staged": side_path(directory, stage_id, "staged"),
            "displaced": side_path(directory, stage_id, "displaced"), "set_aside": side_path(directory, stage_id, "aside"),
            "names": [settings["dbfilename"], settings["appenddirname"], settings["appendfilename"]],
            "appendonly": settings["appendonly"], "databases": settings["databases"], "owner": manifest["facts"].get("owner"),
        }

    def prepare(self, context: Context, record: dict[str, Any]) -> bool:
        directory = str(record["directory"])
        if os.path.isdir(directory):
            return False
        server, client = _server(context), _client(context)
        with server.lock():
            if os.path.isdir(directory):
                return False
            if server.can_provision and not client.reachable():
                server.provision()
            if not os.path.isdir(directory):
                make_directory(directory, record.get("owner"))
        return True

    def stage(self, context: Context, reader: Reader, record: dict[str, Any]) -> None:
        Stage(context, _client(context), record).run(reader)

    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        found = Stage(context, _client(context), record).measure()
        if found is None:
            return Comparison(False, [f"the staged copy {record['staged']} does not exist"])
        return digest.compare(digest.from_entries(reader.entries()), found)

    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        try:
            link = _client(context).open()
        except ServerDown as error:
            return Comparison(False, [f"{error.what} ({error.where})"])
        try:
            try:
                link.call("CLIENT", "NO-TOUCH", "ON")
            except SourceError:
                pass  # older servers: reading then counts as use
            found = digest.measure(link, context.digest_key)
        finally:
            link.close()
        return digest.compare(digest.from_entries(reader.entries()), found)

    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        return _swap(context, record).cutover()

    def rollback(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        return _swap(context, record).rollback()

    def commit(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        return _swap(context, record).commit()

    def discard(self, context: Context, record: dict[str, Any]) -> None:
        _swap(context, record).discard()


def _client(context: Context) -> Client:
    return Client(context.config, f"{context.service}.{context.source}")


def _server(context: Context) -> Server:
    client = _client(context)
    return Server(context.config, client.where, f"redis:{client.socket or client.port}")


def _swap(context: Context, record: dict[str, Any]) -> Swap:
    return Swap(_client(context), _server(context), record)
