-- Copyright (c) Lifeboat contributors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- payments: money. Every payment belongs to one order. Run as superuser in the database "payments".
CREATE EXTENSION "uuid-ossp";

SET ROLE payments_owner;
CREATE TYPE payment_state AS ENUM ('captured', 'refunded');
CREATE DOMAIN card_token AS text CHECK (VALUE ~ '^tok_[0-9a-f]{16}$');
CREATE TYPE money_amount AS (amount numeric(14, 2), currency char(3));

ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO shop_readonly;
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE ON TABLES TO payments_app;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO payments_app;

CREATE TABLE payments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    order_id bigint NOT NULL UNIQUE,
    state payment_state NOT NULL DEFAULT 'captured',
    charged money_amount NOT NULL,
    card card_token NOT NULL,
    payer_ip inet,
    device macaddr,
    provider_answer jsonb,
    receipt bytea,
    fee double precision,
    took interval,
    authorised tstzrange,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payments_at ON payments USING brin (at);
CREATE TABLE ledger (
    id bigint GENERATED ALWAYS AS IDENTITY,
    payment uuid NOT NULL REFERENCES payments,
    account text NOT NULL,
    amount numeric(14, 2) NOT NULL CHECK (amount <> 0),
    at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE ledger ADD PRIMARY KEY (id);
CREATE INDEX ledger_payment ON ledger (payment);
-- One column per day of a statement: wide and mostly empty.
DO $$
BEGIN
    EXECUTE 'CREATE TABLE statements (account text, month date, '
        || (SELECT string_agg(format('day_%s numeric(14, 2), note_%s text', lpad(d::text, 2, '0'), lpad(d::text, 2, '0')), ', ' ORDER BY d) FROM generate_series(1, 31) d)
        || ', PRIMARY KEY (account, month))';
END
$$;
-- The corners of the types.
CREATE TABLE corners (
    name text PRIMARY KEY, n numeric, f double precision, r real, d date, ts timestamp, i interval, t text, b bytea, j json, jb jsonb,
    bits bit varying(64), a int[], nested text[][], p point, net cidr, x xml, big oid, span int4multirange, money money, tz timetz
);

CREATE FUNCTION ledger_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rest numeric;
BEGIN
    SELECT sum(amount) INTO rest FROM ledger WHERE payment = NEW.payment;
    IF rest <> 0 THEN RAISE EXCEPTION 'ledger of payment % is off by %', NEW.payment, rest; END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER ledger_balances AFTER INSERT OR UPDATE ON ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_balances();
CREATE VIEW revenue AS SELECT date_trunc('month', at) AS month, sum((charged).amount) AS amount FROM payments GROUP BY 1;
CREATE AGGREGATE product_of(double precision) (SFUNC = float8mul, STYPE = double precision, INITCOND = '1');
RESET ROLE;

GRANT CONNECT ON DATABASE payments TO shop_readonly;
ALTER DATABASE payments SET default_transaction_isolation = 'repeatable read';
