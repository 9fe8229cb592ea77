# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""TCP probe: {tcp: "host:port"}: somebody listens."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from ..errors import CheckError, ConfigError

if TYPE_CHECKING:
    from ..spec import Spec


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> None:
    """Connect and close."""
    address = str(entry["tcp"])
    host, _colon, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError("not a host:port", address, "write it as 127.0.0.1:8080 or [::1]:8080")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout).close()
    except (socket.timeout, TimeoutError) as error:
        raise CheckError(f"no answer within {timeout:g} s", address) from error
    except OSError as error:
        raise CheckError(f"nobody listens ({error.strerror or error})", address) from error
