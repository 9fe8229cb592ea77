# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster with a shipped log through the verbs: back to the moment between two transactions, and undone."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
from typing import Iterator

import pytest
import yaml

from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.harbour import Harbour
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.postgres import SUPERUSER


@pytest.fixture
def cluster() -> Iterator[WalPostgres]:
    one = WalPostgres().init()
    one.start()
    yield one
    one.destroy()


@pytest.fixture
def harbour() -> Iterator[Harbour]:
    with Harbour({}) as made:
        yield made


def write_catalog(harbour: Harbour, cluster: WalPostgres) -> pathlib.Path:
    path = harbour.home / "ledger.catalog.yml"
    path.write_text(yaml.safe_dump({
        "plugin": "lifeboat.recovery.catalog", "ecosystem": "bank", "state_dir": str(harbour.state),
        "repositories": {"local": {"url": f"file://{harbour.repository}"}},
        "keys": {"provider": "file", "path": str(harbour.home / "keys" / "host"), "private_path": str(harbour.home / "keys" / "private")},
        "services": {"ledger": {
            "host": "localhost",
            "sources": {"db": {
                "type": "postgresql", "data_directory": cluster.data, "port": cluster.port, "user": SUPERUSER, "password_file": cluster.password_file,
                "server": {"start": cluster.start_argv(), "stop": cluster.stop_argv(), "status": cluster.status_argv()}, "log": {"interval": 0.2},
            }},
            "health": [{"tcp": f"127.0.0.1:{cluster.port}"}, {"sql": "select 1", "database": "postgres", "equals": 1}],
            "invariants": [{"name": "no number twice", "sql": "select count(*) - count(distinct n) from notes", "equals": 0}],
        }},
    }))
    return path


def test_the_moment_between_two_transactions(harbour: Harbour, cluster: WalPostgres) -> None:
    catalog = write_catalog(harbour, cluster)
    made = harbour.succeed("bootstrap", catalog=catalog)
    assert "keep this running: lifeboat log run ledger db" in made.text
    cluster.sql("CREATE TABLE notes (n int)")
    cluster.sql("INSERT INTO notes SELECT generate_series(1, 10)")
    command = [str(harbour.home / "bin" / "lifeboat"), "--config", str(harbour.home / "etc")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(harbour.home)}
    with open(harbour.home / "shipper.log", "wb") as said:
        shipper = subprocess.Popen([*command, "log", "run", "ledger", "db"], env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        harbour.succeed("backup", catalog=catalog)
        cluster.sql("INSERT INTO notes SELECT generate_series(11, 20)")
        moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
        cluster.sql("INSERT INTO notes SELECT generate_series(21, 30)")
        wanted = cluster.sql("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")[0][0]

        def proven() -> bool:
            told = subprocess.run([*command, "log", "status", "ledger", "--json"], env=environment, capture_output=True, text=True, timeout=300, check=False)
            position = (json.loads(told.stdout)["ledger.db"]["proven"] or {}).get("position") or "0/0"
            high, low = (int(part, 16) for part in position.split("/"))
            return bool((high << 32) + low >= wanted)

        processes.wait_for(proven, "the log to be proven", 300)
    finally:
        shipper.terminate()
        status = shipper.wait(60)
    assert status == 0, (harbour.home / "shipper.log").read_text()
    cluster.crash()
    processes.remove(cluster.data)

    refused = harbour.play("restore", "-e", "lifeboat_target=2999-01-01T00:00:00Z", catalog=catalog)
    assert refused.code not in (0, 2) and "is in the future" in refused.text
    outcome = harbour.succeed("restore", "-e", f"lifeboat_target={moment}", catalog=catalog)
    assert outcome.verdicts() == {"ledger": "verified"}
    assert outcome.plan["services"]["ledger"]["resolution"]["at"].endswith(f"@time:{moment}")
    reached = outcome.document["services"]["ledger"]["proof"]["sources"]["db"]["reached"]
    assert (reached["from_timeline"], reached["timeline"]) == (1, 2) and reached["last_commit"] < moment.replace("T", " ")
    assert f"reached:     ledger.db: recovery ended at {reached['position']} of timeline 1, last commit {reached['last_commit']}" in outcome.text
    assert outcome.directory is not None and f"recovery ended at {reached['position']}" in (outcome.directory / "report.html").read_text(encoding="utf-8")
    # nobody ships the new timeline: the data is verified, and that it is not protected is no secret
    assert "the log of db is not shipped: no shipper runs; start it: lifeboat log run ledger db" in outcome.message("ledger")
    (warned,) = [text for text in outcome.document["services"]["ledger"]["warnings"] if "not shipped" in text]
    assert warned in (outcome.directory / "report.html").read_text()
    told = harbour.succeed("status", catalog=catalog).text
    assert "log of db: not running, proven up to " in told and "WRONG: shipper" in told
    assert {number for (number,) in cluster.sql("SELECT n FROM notes")} == set(range(1, 21))
    again = harbour.succeed("restore", "-e", f"lifeboat_target={moment}", catalog=catalog)
    assert again.verdicts() == {"ledger": "verified"} and again.changed() == {"ledger": 0}
    assert {number for (number,) in cluster.sql("SELECT n FROM notes")} == set(range(1, 21))
    # one that takes more than the plain way says it as well
    captured = harbour.succeed("restore", "-e", f"lifeboat_target={moment}", "-e", "lifeboat_force=true", "-e", "lifeboat_protect=snapshot", catalog=catalog)
    assert captured.verdicts() == {"ledger": "verified"} and "the log of db is not shipped" in captured.message("ledger")


def test_a_table_beside_the_live_one(harbour: Harbour, cluster: WalPostgres) -> None:
    catalog = write_catalog(harbour, cluster)
    harbour.succeed("bootstrap", catalog=catalog)
    cluster.sql("CREATE TABLE notes (n int)")
    cluster.sql("INSERT INTO notes SELECT generate_series(1, 10)")
    harbour.succeed("backup", catalog=catalog)
    cluster.sql("DELETE FROM notes")

    def schemas() -> list[str]:
        return [name for (name,) in cluster.sql("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|public|information_schema)' ORDER BY 1")]

    asked = ["-e", "lifeboat_services=ledger", "-e", "lifeboat_database=postgres", "-e", "lifeboat_tables=public.notes", "-e", "lifeboat_as=before"]
    for verb, arguments, words in (
        ("extract", asked[:2], "extract needs the name of a database"),
        ("restore", asked, "restore takes no lifeboat_as"),
        ("extract", [*asked, "-e", "lifeboat_as=public"], 'exists already'),
        ("extract", [*asked, "-e", "lifeboat_table=x"], 'did you mean "lifeboat_tables"'),
        ("extract", [*asked, "--check", "-e", "lifeboat_as=public"], 'exists already'),
    ):
        refused = harbour.play(verb, *arguments, catalog=catalog)
        assert refused.code not in (0, 4) and words in refused.text, refused.text
    assert harbour.succeed("extract", *asked, "--check", catalog=catalog).changed() == {"ledger": 1}
    assert schemas() == []
    outcome = harbour.succeed("extract", *asked, catalog=catalog)
    assert outcome.verdicts() == {"ledger": "verified"} and outcome.changed() == {"ledger": 1}
    ledger = outcome.document["services"]["ledger"]
    assert outcome.message("ledger") == "extracted 1 of 1 tables, 10 rows, as schema before of database postgres"
    assert (ledger["proof"]["kind"], ledger["touched"], ledger["digests"]["db"]["equal"]) == ("content", "untouched", True)
    assert "lifeboat_tables=public.notes" in outcome.document["next"]["resume"]
    assert schemas() == ["before"] and cluster.sql("SELECT sum(n) FROM before.notes") == [(55,)] and cluster.sql("SELECT count(*) FROM notes") == [(0,)]
    assert harbour.succeed("extract", *asked, catalog=catalog).changed() == {"ledger": 0}
    told = subprocess.run(
        [str(harbour.home / "bin" / "lifeboat"), "--config", str(harbour.home / "etc"), "extract", "ledger", "db", "--database", "postgres", "--json",
         "--keys", str(harbour.home / "keys" / "private")],
        env={"PATH": os.environ["PATH"], "HOME": str(harbour.home)}, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    made = json.loads(told.stdout)
    assert made["kind"] == "database" and cluster.sql("SELECT sum(n) FROM public.notes", made["name"]) == [(55,)]
