# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One service of the shop in the foreground: ``serve.py SERVICE --home DIR``. As root it becomes the shop's user before it serves."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

from shop.layout import REQUIRES, Home, ShopError


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="serve.py", description=__doc__)
    parser.add_argument("service", choices=list(REQUIRES))
    parser.add_argument("--home", type=Path, required=True)
    options = parser.parse_args()
    home = Home(options.home)
    module = importlib.import_module(f"shop.services.{options.service}")
    # Read while still allowed to: the credentials may belong to root alone.
    service = module.Service(home, options.service, home.credentials)
    try:
        server = service.bind()
    except OSError as error:
        raise ShopError(f"cannot listen: 127.0.0.1:{home.port(options.service)} ({error.strerror}); stop what listens there") from None
    who = home.account
    if who.change:
        os.setgroups([])
        os.setgid(who.gid)
        os.setuid(who.uid)
    os.umask(0o027)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever(poll_interval=5)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ShopError as error:
        sys.exit(f"error: {error}")
