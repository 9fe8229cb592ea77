# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that holds one of everything: odd names, partitions, inheritance, large objects, grants, settings."""

from __future__ import annotations

from typing import Any

from .postgres import Postgres

#: Roles beside the superuser. The names hold what must be quoted.
ROLES = """
CREATE ROLE "shop owner" NOLOGIN;
CREATE ROLE shop_app LOGIN PASSWORD 'app-secret-canary' CONNECTION LIMIT 20 VALID UNTIL '2099-01-01';
CREATE ROLE shop_read NOLOGIN;
CREATE ROLE reporter LOGIN PASSWORD 'report-secret-canary' IN ROLE shop_read;
CREATE ROLE bystander LOGIN;
GRANT "shop owner" TO shop_app WITH ADMIN OPTION;
GRANT pg_read_all_stats TO reporter;
ALTER ROLE shop_app SET work_mem = '8MB';
COMMENT ON ROLE shop_app IS 'the application';
"""

_SCHEMA = r"""
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE SCHEMA "odd ""schema" AUTHORIZATION "shop owner";
COMMENT ON SCHEMA "odd ""schema" IS 'a schema; with -- odd
-- Name: forged; Type: TABLE; Schema: public; Owner: nobody
lines';
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email citext NOT NULL UNIQUE, name varchar(80) NOT NULL, mood mood DEFAULT 'ok',
    status varchar(10) NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'active', 'gone')), attributes hstore, tags text[], document jsonb,
    born date, seen timestamptz, price numeric(12, 3), weight double precision, photo bytea, upper_name text GENERATED ALWAYS AS (upper(name)) STORED
);
CREATE TABLE orders (id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES customers, placed timestamptz NOT NULL, total money, notes text);
CREATE INDEX ON orders (placed DESC) WHERE notes IS NOT NULL;
CREATE TABLE events (at timestamptz NOT NULL, kind text NOT NULL, payload jsonb) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE TABLE base (id int, note text);
CREATE TABLE child (extra int) INHERITS (base);
CREATE UNLOGGED TABLE cache (key text, value text);
CREATE TABLE no_key (word text, number int);
CREATE TABLE no_columns ();
CREATE TABLE "odd ""schema"."Tab\le with
newline; -- ':x' ü" ("Col""umn 1" int, "sélect" text, "a\b" text, dropped int, "z" positive);
ALTER TABLE "odd ""schema"."Tab\le with
newline; -- ':x' ü" DROP COLUMN dropped;
CREATE SEQUENCE lonely START 7 INCREMENT 3;
CREATE SEQUENCE untouched;
CREATE VIEW customer_totals AS SELECT c.name, sum(o.total) AS total FROM customers c LEFT JOIN orders o ON o.customer = c.id GROUP BY 1;
CREATE MATERIALIZED VIEW fresh AS SELECT kind, count(*) FROM events GROUP BY 1;
CREATE MATERIALIZED VIEW stale AS SELECT count(*) AS n FROM no_key;
CREATE MATERIALIZED VIEW unpopulated AS SELECT 1 AS one WITH NO DATA;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
-- a comment in a body
BEGIN NEW.notes := coalesce(NEW.notes, '') || ''; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customers TO shop_app USING (status <> 'gone');
ALTER TABLE orders OWNER TO "shop owner";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop_read;
GRANT SELECT, INSERT, UPDATE (name) ON customers TO shop_app WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE "shop owner" IN SCHEMA public GRANT SELECT ON TABLES TO shop_read;
COMMENT ON COLUMN customers.price IS 'it''s a \ price';
"""

_ROWS = r"""
INSERT INTO customers (email, name, mood, status, attributes, tags, document, born, seen, price, weight, photo)
    SELECT 'User' || i || '@example.org', CASE i % 7 WHEN 0 THEN E'Ünïcödé \t tab\nline \\ slash ' || i ELSE 'name ' || i END,
           (ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::mood, (ARRAY['new', 'active', 'gone'])[1 + i % 3],
           CASE WHEN i % 5 > 0 THEN hstore('k' || i, 'v') END, ARRAY['a', NULL, '"q"'], jsonb_build_object('n', i, 'x', repeat('y', i % 50)),
           DATE '1950-01-01' + i, TIMESTAMPTZ '2024-01-01' + i * INTERVAL '1.000001 s', i / 7.0, CASE i % 11 WHEN 0 THEN 'NaN'::float8 ELSE 1.0 / i END,
           CASE WHEN i % 3 = 0 THEN decode(repeat('00ff5c0a', i % 40), 'hex') END FROM generate_series(1, {n}) i;
INSERT INTO orders (customer, placed, total, notes) SELECT 1 + (i * i) % {n}, TIMESTAMPTZ '2024-06-01' + i * INTERVAL '1 min', (i * 1.37)::numeric::money,
    NULLIF(repeat('note ', i % 9), '') FROM generate_series(1, {n} * 3) i;
INSERT INTO events SELECT TIMESTAMPTZ '2024-11-01' + i * INTERVAL '1 h', 'kind' || i % 5, '{{"a": [1, 2]}}' FROM generate_series(1, {n}) i;
INSERT INTO base SELECT i, 'base' FROM generate_series(1, 10) i;
INSERT INTO child SELECT i, 'child', i FROM generate_series(11, 25) i;
INSERT INTO cache VALUES ('k', 'v');
INSERT INTO no_key SELECT 'same', 1 FROM generate_series(1, 5);
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO "odd ""schema"."Tab\le with
newline; -- ':x' ü" VALUES (1, '\.', '\N', 3), (2, NULL, E'\\', 4);
SELECT nextval('lonely') FROM generate_series(1, 4);
REFRESH MATERIALIZED VIEW fresh;
SELECT lo_from_bytea(990001, decode(repeat('0badcafe00', 2000), 'hex'));
SELECT lo_from_bytea(990002, ''::bytea);
SELECT lo_create(990003);
SELECT lo_put(990003, 100000, 'behind a hole'::bytea);
ALTER LARGE OBJECT 990001 OWNER TO "shop owner";
GRANT SELECT ON LARGE OBJECT 990001 TO shop_read;
COMMENT ON LARGE OBJECT 990002 IS 'empty';
"""


def roles(server: Postgres) -> None:
    """The roles of the database, once per cluster."""
    server.sql(ROLES)


def fill(server: Postgres, database: str, rows: int = 300) -> None:
    """Create the database with one of everything in it."""
    quoted = '"' + database.replace('"', '""') + '"'
    server.sql(f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8' CONNECTION LIMIT 33")
    server.sql(_SCHEMA, database)
    server.sql(_ROWS.replace("{n}", str(rows)).replace("{{", "{").replace("}}", "}"), database)
    for statement in (
        f'ALTER DATABASE {quoted} OWNER TO "shop owner"', f"REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC", f"GRANT CONNECT ON DATABASE {quoted} TO shop_app",
        f"""ALTER DATABASE {quoted} SET search_path = "$user", public, 'odd "schema'""", f"ALTER DATABASE {quoted} SET DateStyle = 'German, DMY'",
        f"ALTER DATABASE {quoted} SET shop.flag = 'it''s'", f"ALTER ROLE shop_app IN DATABASE {quoted} SET statement_timeout = '5s'",
        f"ALTER DATABASE {quoted} SET default_transaction_read_only = on", f"COMMENT ON DATABASE {quoted} IS 'the shop; it''s \\ good'",
    ):
        server.sql(statement)


def damage(server: Postgres, database: str) -> None:
    """Lose and change things of every kind."""
    connection: Any = server.connect(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.execute(
                "DELETE FROM orders WHERE id % 3 = 0; UPDATE customers SET name = 'x' WHERE id = 1; SELECT lo_unlink(990002); "
                "DROP VIEW customer_totals; SELECT nextval('lonely')"
            )
    finally:
        connection.close()
