# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Five services with files and a database, which take a while to start, and an S3 repository at the end of a link of any width."""

from __future__ import annotations

import random
import sys
from typing import Any

from .harbour import Harbour
from .postgres import Postgres
from .seaweed import OWNER, Seaweed
from .slow_link import SlowLink

MIB = 1 << 20
GRAPH = {"identity": [], "stock": [], "ledger": [], "orders": ["identity", "stock"], "gateway": ["orders", "ledger"]}
#: The same with fewer of them, for a machine that has other things to do.
FEW = {"stock": [], "ledger": [], "orders": ["stock", "ledger"]}
#: Parts of the largest service of each service's files, and the seconds that each takes to start.
SIZES = {"identity": 0.25, "stock": 1.0, "orders": 0.5}
STARTS = {"identity": 2.0, "stock": 1.0, "orders": 4.0, "gateway": 1.0}
#: Rows of the database for each MiB of the largest service.
ROWS = 4000


class Site(Harbour):
    """The services, their database and the way to their repository."""

    def __init__(self, mib: float, server: Postgres, store: Seaweed, link: SlowLink, few: bool = False) -> None:
        super().__init__(FEW if few else GRAPH)
        self.mib, self.server, self.link = mib, server, link
        self.catalog["repositories"] = {"store": {
            "url": "s3://forecast/shop", "endpoint": f"http://127.0.0.1:{link.port}", "path_style": True,
            "credentials_file": store.credentials_file("owner", *OWNER[:2]),
        }}
        services = self.catalog["services"]
        for name, seconds in ((name, seconds) for name, seconds in STARTS.items() if name in services):
            begin = "import os, sys, time; time.sleep(float(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
            services[name]["runtime"]["start"] = [sys.executable, "-I", "-S", "-c", begin, str(seconds), *self.argv("start", name)]
            services[name]["policy"] = {"start": {"timeout": "60s"}, "health": {"timeout": "60s"}}
        services.get("gateway", {}).pop("sources", None)
        services["ledger"] = {
            "owner": "team", "host": "localhost", "health": [{"sql": "select count(*) > 0 from entries", "source": "db", "equals": True}],
            "sources": {"db": {"type": "postgresql_database", "database": "ledger", "port": server.port, "password_file": server.password_file}},
            "invariants": [{"name": "nothing is lost", "sql": "select count(*) from entries where note is null", "equals": 0}],
        }
        self.write_catalog()

    def grow(self, times: int) -> None:
        """Give every store ``times`` its data."""
        for name, part in ((name, part) for name, part in SIZES.items() if name in self.ports):
            source = random.Random(f"{name} {times}")
            with open(self.data(name) / "large", "wb") as handle:
                for _number in range(max(1, round(times * part * self.mib))):
                    handle.write(source.randbytes(MIB))
        rows = round(ROWS * self.mib)
        self.server.sql("insert into entries select n, md5(n::text) || md5((n + 1)::text) from generate_series(%s, %s) n", "ledger",
                        (rows * (times - 1) + 1, rows * times))

    def restore(self, point: str, rate: float) -> dict[str, Any]:
        """One restore; forecast and measured time, as its run.json has them."""
        self.link.rate = rate
        try:
            outcome = self.succeed("restore", "-e", f"lifeboat_target={point}", "-e", "lifeboat_force=true", "--forks", str(len(self.ports)))
        finally:
            self.link.rate = 0.0
        return dict(outcome.document["forecast"])
