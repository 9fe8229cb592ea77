# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database, and a few tables, out of a snapshot with its log, moved into the live cluster under new names; nothing else of it changes."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
from typing import Any, Iterator

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults, lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import CheckError, ConflictError, LifeboatError, SourceError, TargetError
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import capture, operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.extract import Request
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_extract, cluster_extract_copy
from ansible_collections.lifeboat.recovery.tests.lab import processes
from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres
from ansible_collections.lifeboat.recovery.tests.lab.postgres import bin_dirs, versions

#: The fault points that only an extraction passes.
OWN = [point for point in faults.points() if point.startswith("extract.")]
ODD = 'Weird "name"; DROP TABLE x; --\n$(id)'
SCHEMA = """
CREATE ROLE shop_owner; CREATE ROLE shop_read; CREATE ROLE short_lived; CREATE ROLE shop_app LOGIN;
CREATE DATABASE shop OWNER shop_owner; CREATE DATABASE bystander; CREATE DATABASE zoo;
"""
TABLES = r"""
CREATE EXTENSION {extension};
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE place AS (street text, mood mood);
CREATE FUNCTION code() RETURNS text LANGUAGE sql AS $$ SELECT 'c' $$;
CREATE FUNCTION small(int) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT $1 < 1000000 $$;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.loud VALUES (TG_TABLE_NAME); RETURN NEW; END $$;
CREATE TABLE loud (what text);
CREATE SEQUENCE shared;
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id serial PRIMARY KEY, nr bigint GENERATED ALWAYS AS IDENTITY, customer int CONSTRAINT of_customer REFERENCES customers,
    mood mood, amount int, nice positive, attributes {extension}, place place, code text DEFAULT code(), ticket bigint DEFAULT nextval('shared'), scan oid,
    twice int GENERATED ALWAYS AS (amount * 2) STORED, CONSTRAINT is_small CHECK (small(amount)));
CREATE INDEX on_small ON orders (small(id));
CREATE INDEX on_mood ON orders (mood);
CREATE TABLE lines (order_id int CONSTRAINT of_order REFERENCES orders, line int, PRIMARY KEY (order_id, line));
CREATE TRIGGER shout AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE TABLE parent (id int); CREATE TABLE child (more text) INHERITS (parent);
CREATE UNLOGGED TABLE cache (key text);
CREATE VIEW seen AS SELECT * FROM orders;
CREATE TABLE hidden (id int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON hidden TO shop_read USING (true);
CREATE PUBLICATION all_of_it FOR TABLE orders;
ALTER TABLE orders OWNER TO shop_owner; GRANT SELECT ON orders TO shop_read, short_lived; ALTER TABLE lines OWNER TO short_lived;
ALTER DATABASE shop SET work_mem = '9MB';
"""
ROWS = """
INSERT INTO customers VALUES (1, 'one'), (2, 'two');
INSERT INTO orders (customer, mood, amount, nice, attributes, place, scan)
    SELECT 1 + i % 2, 'ok', i, i, '{value}'::{extension}, ROW('s', 'sad'::mood)::place, 990001
    FROM generate_series(1, 500) i;
INSERT INTO lines SELECT i, j FROM generate_series(1, 500) i, generate_series(1, 3) j;
INSERT INTO events SELECT DATE '2024-06-01' + i, 'e' || i FROM generate_series(1, 400) i;
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'two'); INSERT INTO cache VALUES ('k'); INSERT INTO hidden VALUES (1);
SELECT lo_from_bytea(990001, decode(repeat('0badcafe00', 2000), 'hex'));
"""
#: What tables can be made of; ``lost`` and ``stuck`` cannot be taken alone.
ZOO = r"""
CREATE SCHEMA other;
CREATE FUNCTION other.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT $1 + 1 $$;
CREATE FUNCTION other.fine(int) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT true $$;
CREATE DOMAIN other.small AS int CHECK (VALUE < 1000);
CREATE DOMAIN other.smaller AS other.small CONSTRAINT by_function CHECK (other.fine(VALUE));
CREATE TYPE other.span AS RANGE (subtype = int4, multirange_type_name = other.spans);
CREATE TYPE other.inner_part AS (n other.small);
CREATE TYPE other.outer_part AS (parts other.inner_part[], text text);
CREATE COLLATION other.words (provider = libc, locale = 'C');
CREATE TABLE other_whole (id int PRIMARY KEY);
CREATE TABLE whole (id int GENERATED BY DEFAULT AS IDENTITY, region text, up int REFERENCES other_whole, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE other.whole_n PARTITION OF whole FOR VALUES IN ('n') PARTITION BY RANGE (id);
CREATE TABLE other.whole_n1 PARTITION OF other.whole_n FOR VALUES FROM (0) TO (100);
CREATE TABLE other.whole_s (region text NOT NULL, up int, id int NOT NULL);
ALTER TABLE whole ATTACH PARTITION other.whole_s FOR VALUES IN ('s');
CREATE INDEX by_function ON whole (other.f(id));
CREATE TABLE beasts (id int PRIMARY KEY, mother int REFERENCES beasts, span other.span, spans other.spans, n other.smaller, part other.outer_part,
    word text COLLATE other.words, twice int GENERATED ALWAYS AS (other.f(id)) STORED, at int4range, EXCLUDE USING gist (at WITH &&),
    whole_id int, region text, FOREIGN KEY (whole_id, region) REFERENCES whole);
CREATE STATISTICS other.of_beasts ON id, mother FROM beasts;
CREATE RULE quiet AS ON DELETE TO beasts DO ALSO NOTIFY beasts;
CREATE TABLE typed OF other.outer_part;
CREATE TABLE lost (id int) PARTITION BY RANGE (other.f(id));
CREATE TABLE stuck (b beasts);
CREATE TABLE other.beasts (id int);
INSERT INTO other_whole VALUES (7);
INSERT INTO whole (region, up) VALUES ('n', 7), ('s', 7);
INSERT INTO beasts (id, mother, span, spans, n, part, word, at, whole_id, region) SELECT i, i - 1, other.span(i, i + 2), other.spans(other.span(i, i + 1)), i,
    ROW(ARRAY[ROW(i)::other.inner_part], 'x')::other.outer_part, 'w', int4range(i, i + 1), 1, 'n' FROM generate_series(2, 50) i, (SELECT 1) x WHERE i > 2
    UNION ALL SELECT 2, NULL, NULL, NULL, 1, NULL, 'w', NULL, NULL, NULL ORDER BY 1;
"""
COUNTS = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {} t"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Shop:
    """A cluster of several databases with a snapshot and a log behind it, and what it held at a middle moment."""

    def __init__(self, home: pathlib.Path, programs: str) -> None:
        self.cluster = WalPostgres(programs=programs).init()
        try:
            self._fill(home)
        except BaseException:
            self.cluster.destroy()
            raise

    def _fill(self, home: pathlib.Path) -> None:
        cluster = self.cluster
        cluster.configure("max_prepared_transactions = 5")
        cluster.start()
        extension, value = ("hstore", "a=>1") if cluster.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'") else ("vector", "[1,2]")
        self.lab = LogLab(home, cluster)
        for statement in SCHEMA.split(";"):
            if statement.strip():
                cluster.sql(statement)
        cluster.sql(ZOO, "zoo")
        self.zoo = {name: cluster.sql(COUNTS.format(name), "zoo")[0] for name in ("beasts", "whole")}
        cluster.sql("CREATE PUBLICATION everything FOR ALL TABLES", "bystander")
        cluster.sql(TABLES.replace("{extension}", extension), "shop")
        cluster.sql(f"CREATE SCHEMA {quoted(ODD)}; CREATE TABLE {quoted(ODD)}.{quoted(ODD)} ({quoted(ODD)} text);"
                    f" INSERT INTO {quoted(ODD)}.{quoted(ODD)} VALUES ('odd')", "shop")
        cluster.sql(ROWS.replace("{extension}", extension).replace("{value}", value), "shop")
        cluster.sql("BEGIN; UPDATE orders SET amount = 0; PREPARE TRANSACTION 'half way'", "shop")
        self.lab.start()
        capture.capture_service(self.lab.spec, lease.new_run("backup"))
        cluster.sql("INSERT INTO customers VALUES (3, 'three'); INSERT INTO orders (customer, mood, amount) VALUES (3, 'sad', 1000)", "shop")
        self.then = {name: cluster.sql(COUNTS.format(name), "shop")[0] for name in ("customers", "orders", "lines", "events", "parent", "child")}
        self.moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
        cluster.sql("ROLLBACK PREPARED 'half way'", "shop")
        cluster.sql("DELETE FROM lines; DELETE FROM orders; INSERT INTO customers VALUES (4, 'four')", "shop")
        self.lab.wait_proven(cluster.position())
        self.lab.stop(signal.SIGTERM)
        cluster.sql("ALTER TABLE lines OWNER TO postgres; REVOKE ALL ON orders FROM short_lived", "shop")
        cluster.sql("DROP ROLE short_lived")
        cluster.sql("INSERT INTO customers VALUES (5, 'five')", "shop")

    def request(self, *tables: str, name: str = "", target: str = "", database: str = "shop") -> Request:
        return Request(target or self.moment, database, tables, "db", name)

    def extract(self, request: Request, check: bool = False) -> dict[str, Any]:
        return operations.extract(self.lab.spec, lease.new_run("extract"), request, check)

    def fingerprint(self) -> dict[str, Any]:
        """Everything of the live cluster that existed before: dumps of all, without the new objects."""
        told: dict[str, Any] = {"pid": self.cluster.pid()}
        for database in ("shop", "bystander", "postgres", "zoo"):
            done = subprocess.run(
                [f"{self.cluster.bin}/pg_dump", "-h", "127.0.0.1", "-p", str(self.cluster.port), "-U", "postgres", "--exclude-schema=new_*", database],
                env={**os.environ, "PGPASSWORD": "lab-password"}, capture_output=True, timeout=120, check=True)
            told[database] = [line for line in done.stdout.split(b"\n") if not line.startswith((b"\\restrict", b"\\unrestrict"))]
        told["roles"] = self.cluster.sql("SELECT rolname FROM pg_roles ORDER BY 1")
        told["relations"] = self.cluster.sql(
            "SELECT oid::bigint, relfilenode::bigint FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1", "shop")
        return told

    def new(self) -> tuple[list[str], list[str]]:
        """(databases, schemas of shop) that were not there at first."""
        databases = [row[0] for row in self.cluster.sql(
            "SELECT datname FROM pg_database WHERE datname !~ '^(template|postgres$|shop$|bystander$|zoo$)' ORDER BY 1")]
        schemas = [row[0] for row in self.cluster.sql(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|public$|Weird)' ORDER BY 1", "shop")]
        return databases, schemas

    def leftovers(self) -> list[str]:
        beside = [name for name in os.listdir(self.cluster.home) if "lifeboat" in name]
        return sorted([*beside, *os.listdir(self.lab.spec.work_dir("db"))])

    def drop(self) -> None:
        databases, schemas = self.new()
        for name in databases:
            self.cluster.sql(f"DROP DATABASE {quoted(name)} WITH (FORCE)")
        for name in schemas:
            self.cluster.sql(f"DROP SCHEMA {quoted(name)} CASCADE", "shop")


#: `make test` takes one version, `make soak` the others.
_VERSIONS = versions(15)


@pytest.fixture(scope="module", params=_VERSIONS)
def lasting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("extract"), bin_dirs()[request.param])
    try:
        yield made
    finally:
        made.lab.end()
        made.cluster.destroy()


@pytest.fixture
def shop(lasting: Shop) -> Iterator[Shop]:
    before = lasting.fingerprint()
    yield lasting
    lasting.drop()
    assert lasting.fingerprint() == before
    assert lasting.leftovers() == []


def test_a_database_at_a_middle_time(shop: Shop) -> None:
    said = shop.extract(shop.request(), check=True)
    assert said["ok"] and said["changed"] and shop.new() == ([], [])
    stamp = datetime.datetime.fromisoformat(shop.moment).strftime("shop_%Y%m%dt%H%M%Sz")
    assert said["name"] == stamp
    told = shop.extract(shop.request())
    assert told["changed"] and told["proof"] == "content" and told["extracted"] == told["of"] == len(told["tables"])
    assert shop.new() == ([stamp], [])
    for name, wanted in shop.then.items():
        assert shop.cluster.sql(COUNTS.format(f"public.{name}"), stamp) == [wanted], name
    # the log is 32 values ahead of a sequence: after any recovery it goes on behind them
    assert shop.cluster.sql("SELECT last_value BETWEEN 501 AND 533, is_called FROM public.orders_id_seq", stamp) == [(True, True)]
    assert shop.cluster.sql("SELECT octet_length(lo_get(990001))", stamp) == [(10000,)]
    assert shop.cluster.sql("SELECT count(*) FROM public.cache", stamp) == [(0,)]
    assert shop.cluster.sql("SHOW work_mem", stamp) == [("9MB",)]
    assert shop.cluster.sql("SELECT pg_get_userbyid(datdba), datconnlimit FROM pg_database WHERE datname = %s", parameters=(stamp,)) == [("shop_owner", -1)]
    assert told["roles_missing"] == ["short_lived"]
    left = "\n".join(told["left_out"])
    for words in ("prepared transaction half way", "publication all_of_it", "rows of unlogged table public.cache",
                  "ownership by role short_lived: the role is missing, postgres owns", "privileges of role short_lived"):
        assert words in left, left
    assert told["reached"]["target"].startswith("time:")
    again = shop.extract(shop.request())
    assert not again["changed"] and again["noop"] and again["tables"] == told["tables"] and shop.new() == ([stamp], [])
    shop.cluster.sql("INSERT INTO public.parent VALUES (99)", stamp)
    with pytest.raises(ConflictError, match=f"exists already.*was written to since.*DROP DATABASE \"{stamp}\""):
        shop.extract(shop.request())


def test_tables_and_what_cannot_stand_by_itself(shop: Shop) -> None:
    odd = f"{quoted(ODD)}.{quoted(ODD)}"
    request = shop.request("public.orders", "public.lines", "public.events", "public.child", "public.hidden", "public.cache", odd, name="new_tables")
    assert shop.extract(request, check=True)["ok"]
    told = shop.extract(request)
    assert (told["extracted"], told["of"]) == (7, 7) and shop.new() == ([], ["new_tables"])
    assert {table["table"]: table["rows"] for table in told["tables"]} == {
        "public.orders": 501, "public.lines": 1500, "public.events": 400, "public.child": 1, "public.hidden": 1, "public.cache": 0,
        f"{ODD}.{ODD}".replace("\n", "\\n"): 1}
    assert told["message"].startswith("extracted 7 of 7 tables, 2404 rows, as schema new_tables of database shop")
    for name in ("orders", "lines", "events", "child"):
        assert shop.cluster.sql(COUNTS.format(f"new_tables.{name}"), "shop") == [shop.then[name]], name
    assert shop.cluster.sql("SELECT count(*) FROM new_tables.events_1", "shop") == [(213,)]
    assert shop.cluster.sql(f"SELECT * FROM new_tables.{quoted(ODD)}", "shop") == [("odd",)]
    assert shop.cluster.sql("SELECT pg_get_serial_sequence('new_tables.orders', 'id'), pg_get_serial_sequence('new_tables.orders', 'nr')", "shop") == [
        ("new_tables.orders_id_seq", "new_tables.orders_nr_seq")]
    assert shop.cluster.sql("SELECT last_value BETWEEN 501 AND 533, is_called FROM new_tables.orders_id_seq", "shop") == [(True, True)]
    assert shop.cluster.sql("""SELECT attname, typnamespace::regnamespace::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE attrelid = 'new_tables.orders'::regclass AND attname IN ('mood', 'nice', 'place', 'attributes') ORDER BY 1""", "shop") == [
        ("attributes", "public"), ("mood", "new_tables"), ("nice", "new_tables"), ("place", "new_tables")]
    assert shop.cluster.sql("SELECT conname FROM pg_constraint WHERE connamespace = 'new_tables'::regnamespace AND contype IN ('f', 'c') ORDER BY 1",
                            "shop") == [("of_order",), ("positive_check",)]
    assert shop.cluster.sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'new_tables.orders'::regclass AND NOT tgisinternal", "shop") == [(0,)]
    assert shop.cluster.sql("""SELECT has_table_privilege('shop_read', 'new_tables.orders', 'SELECT'),
        has_schema_privilege('shop_read', 'new_tables', 'USAGE')""", "shop") == [(True, False)]
    assert shop.cluster.sql("SELECT tableowner FROM pg_tables WHERE schemaname = 'new_tables' AND tablename IN ('orders', 'lines') ORDER BY tablename",
                            "shop") == [("postgres",), ("shop_owner",)]
    left = "\n".join(told["left_out"])
    for words in (
        "foreign key of_customer of public.orders: table public.customers was not picked", "trigger shout of public.orders",
        "default of public.orders.code: it needs function public.code()", "default of public.orders.ticket: it needs sequence public.shared",
        "constraint is_small of public.orders", 'index "on_small" of public.orders',
        "public.child as a child of public.parent", "policy own of public.hidden", "rows of public.cache", "1 large objects that public.orders.scan names",
        "ownership by role short_lived", "privileges of role short_lived", "privileges on schema new_tables: it is open to its owner postgres only",
    ):
        assert words in left, f"{words!r} not in {left}"
    assert len(told["left_out"]) == 14 and "prepared transaction half way" in left, left
    assert not shop.extract(request)["changed"]


def test_tables_of_every_kind(shop: Shop) -> None:
    told = shop.extract(shop.request("public.beasts", "public.whole", "public.typed", database="zoo", name="new_zoo"))
    try:
        assert (told["extracted"], told["of"], told["sequences"]) == (3, 3, 1)
        for name, wanted in shop.zoo.items():
            assert shop.cluster.sql(COUNTS.format(f"new_zoo.{name}"), "zoo") == [wanted]
        assert shop.cluster.sql("""SELECT DISTINCT refobjid FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE d.classid = 'pg_class'::regclass
            AND d.refclassid = 'pg_type'::regclass AND d.refobjid >= 16384 AND c.relnamespace = 'new_zoo'::regnamespace
            AND d.refobjid IN (SELECT oid FROM pg_type WHERE typnamespace <> 'new_zoo'::regnamespace)""", "zoo") == []
        assert shop.cluster.sql("""
            SELECT relname FROM pg_class WHERE relnamespace = 'new_zoo'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1""", "zoo") == [
            ("beasts",), ("typed",), ("whole",), ("whole_n",), ("whole_n1",), ("whole_s",)]
        assert len(shop.cluster.sql("""
            SELECT 1 FROM pg_constraint WHERE contype = 'f' AND conrelid = 'new_zoo.beasts'::regclass AND conparentid = 0""", "zoo")) == 2
        left = "\n".join(told["left_out"])
        for words in (
            "rule quiet of public.beasts", "extended statistics other.of_beasts", "expression of generated column public.beasts.twice", "the values are kept",
            "constraint by_function of domain smaller", 'index "by_function" of public.whole', "foreign key whole_up_fkey of public.whole",
        ):
            assert words in left, f"{words!r} not in {left}"
        assert len(told["left_out"]) == 7, left
    finally:
        shop.cluster.sql("DROP SCHEMA IF EXISTS new_zoo CASCADE", "zoo")
    for table, words in (
        ("lost", r"cannot stand by themselves .table lost needs function other\.f"),
        ("stuck", r"cannot stand by themselves .table stuck needs type public\.beasts"),
    ):
        with pytest.raises(SourceError, match=words):
            shop.extract(shop.request(f"public.{table}", database="zoo", name="new_zoo"))
        assert shop.leftovers() == []
    with pytest.raises(LifeboatError, match="would have the same name"):
        shop.extract(shop.request("public.beasts", "other.beasts", database="zoo", name="new_zoo"))


def test_what_is_refused_before_anything_is_built(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: Any, **_more: Any) -> None:
        raise AssertionError("it was staged")

    monkeypatch.setattr("ansible_collections.lifeboat.recovery.plugins.module_utils.sources.cluster_restore.Rebuild.run", never)
    for request, error, words in (
        (shop.request(target="2999-01-01T00:00:00Z"), TargetError, "cannot be reached"),
        (shop.request(target="lsn:FF/0"), TargetError, "cannot be reached"),
        (shop.request(target="xid:99999999"), TargetError, "does not end in the log"),
        (shop.request(target="name:nobody made it"), TargetError, "no restore point has the name"),
        (shop.request(target="2001-01-01T00:00:00Z"), TargetError, "no complete point"),
        (shop.request(name="bystander"), ConflictError, "exists already.*not made by an extraction.*choose another name$"),
        (shop.request("public.orders", name="public"), ConflictError, "'public' exists already"),
        (shop.request("orders"), LifeboatError, "cannot be read"),
        (shop.request("public.orders", name="pg_mine"), LifeboatError, "the server's own"),
        (shop.request("public.orders", database="gone"), LifeboatError, "does not exist"),
        (shop.request("public.loud", name="new_one", database="bystander"), LifeboatError, "publishes all its tables .everything."),
    ):
        with pytest.raises(error, match=words):
            shop.extract(request)
        assert shop.new() == ([], []) and shop.leftovers() == [], request


def dying(_stream: Any) -> None:
    raise SourceError("pg_dump died", "here", "do that")


def test_what_only_the_target_can_tell_leaves_nothing_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for request, words in (
        (shop.request("public.gone", name="new_one"), "there is no table public.gone"),
        (shop.request("public.seen", name="new_one"), "no table with rows of its own"),
        (shop.request(database="'; DROP DATABASE shop; --"), "there was no database"),
    ):
        with pytest.raises(LifeboatError, match=words):
            shop.extract(request)
        assert shop.new() == ([], []) and shop.leftovers() == [], words
    with monkeypatch.context() as patched:
        patched.setattr(cluster_extract_copy.DumpStream, "finish", dying)
        with pytest.raises(SourceError, match="pg_dump died"):
            shop.extract(shop.request("public.lines", name="new_one"))
    assert shop.new() == ([], []) and shop.leftovers() == [], "all of the text was there, but not its end"
    real = cluster_extract.ClusterExtraction._measure

    def differing(self: Any, client: Any, database: str, schema: str | None) -> Any:
        found = real(self, client, database, schema)
        if client is self._client:
            found["table lines"] = [1, "1"]
        return found

    monkeypatch.setattr(cluster_extract.ClusterExtraction, "_measure", differing)
    with pytest.raises(CheckError, match="0 of 1 tables are equal .*1500 rows expected, 1 found"):
        shop.extract(shop.request("public.lines", name="new_one"))
    assert shop.new() == ([], []) and shop.leftovers() == []


_EXTRACT = """
import json, sys
from ansible_collections.lifeboat.recovery.plugins.module_utils import lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.extract import Request
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
spec, (target, database, tables, source, name) = Spec.from_dict(json.loads(sys.argv[1])), json.loads(sys.argv[2])
operations.extract(spec, lease.new_run("extract"), Request(target, database, tuple(tables), source, name), False)
"""


def begin(shop: Shop, request: Request, fault: str = "") -> subprocess.Popen[str]:
    """The same in a process of its own, which kills itself at the fault."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFEBOAT_FAULT")}
    environment.update(PYTHONPATH=os.pathsep.join(path for path in sys.path if path), LIFEBOAT_FAULT=fault)
    words = [request.target, request.database, request.tables, request.source, request.name]
    return subprocess.Popen([sys.executable, "-c", _EXTRACT, json.dumps({**shop.lab.document, "keys": shop.lab.private}), json.dumps(words)],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("fault", [*OWN, "stage.write.after:50"])
def test_killed_at_every_point_the_same_command_again_completes(shop: Shop, fault: str) -> None:
    request = shop.request(name="new_whole") if len(fault) % 2 else shop.request("public.orders", "public.events", name="new_part")
    process = begin(shop, request, fault)
    _output, errors = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, errors
    if fault not in ("extract.published", "extract.done"):
        said = shop.extract(request, check=True)
        assert said["changed"] and len(said["leftovers"]) == 1
        assert "new_whole" not in shop.new()[0] and "new_part" not in shop.new()[1]
    told = shop.extract(request)
    assert told["of"] == told["extracted"] == len(told["tables"]) and told["left_out"]
    assert told["changed"] == (fault not in ("extract.published", "extract.done"))
    assert shop.new() == ((["new_whole"], []) if not request.tables else ([], ["new_part"]))
    schema, database = ("new_part", "shop") if request.tables else ("public", "new_whole")
    assert shop.cluster.sql(COUNTS.format(f"{schema}.orders"), database) == [shop.then["orders"]]
    held = lease.read(shop.lab.spec)
    assert (held is None or not held["alive"]) and operations.known(shop.lab.spec)["unfinished"] is None
    processes.wait_for(lambda: shop.leftovers() == [], "the end of what was left")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random_moments(shop: Shop, seed: int) -> None:
    request = shop.request(name="new_whole") if seed % 2 else shop.request("public.orders", "public.events", name="new_part")
    process = begin(shop, request)
    timer = threading.Timer(random.Random(seed).uniform(0.3, 6), process.kill)
    timer.start()
    _output, errors = process.communicate(timeout=600)
    timer.cancel()
    assert process.returncode in (0, -signal.SIGKILL), errors
    told = shop.extract(request)
    assert told["changed"] or told["noop"]
    assert shop.new() == ((["new_whole"], []) if seed % 2 else ([], ["new_part"]))
    assert not shop.extract(request)["changed"]
