-- Copyright (c) Lifeboat contributors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- identity: who the customers are. Run as superuser in the database "identity".
CREATE EXTENSION citext;
CREATE EXTENSION pgcrypto;
CREATE COLLATION case_blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
ALTER COLLATION case_blind OWNER TO identity_owner;

SET ROLE identity_owner;
CREATE SCHEMA auth;
CREATE TYPE account_status AS ENUM ('invited', 'active', 'locked', 'closed');
CREATE DOMAIN email_address AS citext CHECK (VALUE ~ '^[^@\s]+@[^@\s]+$');
CREATE TYPE postal AS (street text, city text, code text, country char(2));

ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO shop_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO identity_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO identity_app;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY (START WITH 1000) PRIMARY KEY,
    email email_address NOT NULL UNIQUE,
    name text NOT NULL,
    nickname text COLLATE case_blind,
    status account_status NOT NULL DEFAULT 'active',
    password_salt bytea,
    password_hash bytea,
    profile jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    home postal,
    avatar bytea,
    last_ip inet,
    born date,
    referred_by bigint REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz,
    initials text GENERATED ALWAYS AS (upper(left(name, 2))) STORED
);
CREATE INDEX users_profile ON users USING gin (profile jsonb_path_ops);
CREATE INDEX users_active ON users (created_at DESC) INCLUDE (name) WHERE status = 'active';
CREATE INDEX users_lower_name ON users (lower(name));
COMMENT ON TABLE users IS 'One row per customer; e-mail is compared without case';
COMMENT ON COLUMN users.avatar IS 'PNG or nothing';

CREATE TABLE login_events (
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    at timestamptz NOT NULL,
    ip inet,
    agent text,
    ok boolean NOT NULL,
    PRIMARY KEY (user_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE login_events_2024 PARTITION OF login_events FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z');
CREATE TABLE login_events_2025 PARTITION OF login_events FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
CREATE TABLE login_events_rest PARTITION OF login_events DEFAULT;

-- No primary key, and rows that are equal to each other.
CREATE TABLE audit_log (at timestamptz NOT NULL DEFAULT now(), actor text, action text NOT NULL, subject bigint, detail jsonb);

CREATE TABLE auth.api_tokens (
    token uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id bigint NOT NULL REFERENCES public.users,
    scopes text[] NOT NULL,
    valid tstzrange NOT NULL
);
ALTER TABLE auth.api_tokens ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tokens ON auth.api_tokens TO identity_app USING (upper(valid) > '2020-01-01Z');
GRANT USAGE ON SCHEMA auth TO identity_app;
GRANT SELECT, INSERT ON auth.api_tokens TO identity_app;
GRANT SELECT (token, user_id) ON auth.api_tokens TO shop_reporting;

CREATE FUNCTION note_user_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
BEGIN
    -- A line that looks like the end of a COPY block:
    -- \.
    INSERT INTO audit_log (actor, action, subject, detail) VALUES (session_user, lower(TG_OP), NEW.id, jsonb_build_object('status', NEW.status));
    NEW.updated_at := now();
    RETURN NEW;
END
$body$;
CREATE TRIGGER note_change BEFORE UPDATE OF status, name, email ON users FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.name <> NEW.name) EXECUTE FUNCTION note_user_change();
CREATE VIEW active_users WITH (security_barrier) AS SELECT id, email, name, created_at FROM users WHERE status = 'active';
CREATE STATISTICS users_shape (dependencies) ON status, born FROM users;
RESET ROLE;

ALTER DATABASE identity SET timezone = 'Europe/Berlin';
ALTER DATABASE identity SET statement_timeout = '20s';
ALTER ROLE identity_app IN DATABASE identity SET search_path = public, auth;
REVOKE CONNECT, TEMPORARY ON DATABASE identity FROM PUBLIC;
GRANT CONNECT ON DATABASE identity TO identity_app, shop_readonly;
