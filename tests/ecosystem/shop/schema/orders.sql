-- Copyright (c) Lifeboat contributors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- orders: what was ordered. A cluster of its own, beside a directory of invoices. Run as superuser in the database "orders".
CREATE EXTENSION lo;
CREATE EXTENSION pg_trgm;

SET ROLE orders_owner;
CREATE TYPE order_state AS ENUM ('new', 'paid', 'shipped', 'cancelled');
CREATE DOMAIN currency AS char(3) CHECK (VALUE ~ '^[A-Z]{3}$');

ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO shop_readonly;
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_app;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO orders_app;

CREATE SEQUENCE order_number START 500000;

CREATE TABLE orders (
    id bigint PRIMARY KEY DEFAULT nextval('order_number'),
    user_id bigint NOT NULL,
    reservation bigint NOT NULL UNIQUE,
    state order_state NOT NULL DEFAULT 'new',
    payment uuid,
    total numeric(14, 2) NOT NULL CHECK (total >= 0),
    currency currency NOT NULL DEFAULT 'EUR',
    note text,
    gift_message text,
    coupon varchar(32),
    meta jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz,
    CHECK (state NOT IN ('paid', 'shipped') OR payment IS NOT NULL)
);
ALTER SEQUENCE order_number OWNED BY orders.id;
CREATE INDEX orders_user ON orders (user_id, created_at DESC NULLS LAST);
CREATE INDEX orders_meta ON orders USING gin (meta);
CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    line smallint NOT NULL,
    product bigint NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    price numeric(12, 2) NOT NULL,
    amount numeric(14, 2) GENERATED ALWAYS AS (quantity * price) STORED,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE invoices (
    order_id bigint PRIMARY KEY REFERENCES orders,
    path text NOT NULL UNIQUE,
    size bigint NOT NULL,
    sha256 bytea NOT NULL CHECK (length(sha256) = 32)
);
CREATE TABLE attachments (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders, name text NOT NULL, content bytea);
ALTER TABLE attachments ALTER COLUMN content SET STORAGE EXTERNAL;
-- Signed contracts are large objects, removed with their row.
CREATE TABLE contracts (order_id bigint PRIMARY KEY REFERENCES orders, signed lo NOT NULL, signed_at timestamptz);
CREATE TRIGGER drop_signed BEFORE UPDATE OR DELETE ON contracts FOR EACH ROW EXECUTE FUNCTION lo_manage(signed);
-- What the till sends: no primary key, duplicates allowed.
CREATE TABLE till_import (batch int, line text, received timestamptz DEFAULT now(), raw bytea);

CREATE TABLE order_events (order_id bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), event text NOT NULL, data jsonb) PARTITION BY RANGE (at);
CREATE TABLE order_events_2024 PARTITION OF order_events FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z');
CREATE TABLE order_events_2025 PARTITION OF order_events FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z') PARTITION BY LIST (event);
CREATE TABLE order_events_2025_paid PARTITION OF order_events_2025 FOR VALUES IN ('paid');
CREATE TABLE order_events_2025_rest PARTITION OF order_events_2025 DEFAULT;
CREATE TABLE order_events_now PARTITION OF order_events DEFAULT;
CREATE INDEX order_events_order ON order_events (order_id);

CREATE FUNCTION log_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.changed_at := now();
        IF NEW.state = OLD.state THEN RETURN NEW; END IF;
    END IF;
    INSERT INTO order_events (order_id, event, data) VALUES (NEW.id, NEW.state::text, jsonb_build_object('total', NEW.total));
    RETURN NEW;
END
$$;
CREATE TRIGGER log_order BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION log_order();
CREATE VIEW open_orders AS SELECT o.*, (SELECT sum(amount) FROM order_lines l WHERE l.order_id = o.id) AS lines_total FROM orders o WHERE state IN ('new', 'paid');
CREATE PROCEDURE forget_user(who bigint) LANGUAGE sql AS 'UPDATE orders SET note = NULL, gift_message = NULL WHERE user_id = who';
REVOKE EXECUTE ON PROCEDURE forget_user(bigint) FROM PUBLIC;
RESET ROLE;

ALTER DATABASE orders SET random_page_cost = 1.1;
ALTER DATABASE orders SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE orders_app SET lock_timeout = '10s';
ALTER ROLE orders_app IN DATABASE orders SET application_name = 'orders';
GRANT CONNECT ON DATABASE orders TO shop_readonly;
