# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The roles a database needs, and the settings of a cluster of its own.

Both are cluster-wide: on restore, what is missing is created, what is there is never altered, differences are told.
Password verifiers are content: they travel in sealed chunks and never through facts, messages or the server's log.
"""

from __future__ import annotations

import json
from typing import Any

from ..libraries import need
from .postgresql_catalog import literal, setting_name, setting_value
from .postgresql_client import Client, columns, quote, version_of

#: pg_authid column -> words of CREATE ROLE for true and false
_ATTRIBUTES = {
    "rolsuper": ("SUPERUSER", "NOSUPERUSER"), "rolinherit": ("INHERIT", "NOINHERIT"), "rolcreaterole": ("CREATEROLE", "NOCREATEROLE"),
    "rolcreatedb": ("CREATEDB", "NOCREATEDB"), "rolcanlogin": ("LOGIN", "NOLOGIN"), "rolreplication": ("REPLICATION", "NOREPLICATION"),
    "rolbypassrls": ("BYPASSRLS", "NOBYPASSRLS"),
}
#: One change of roles at a time per cluster (an advisory lock in the maintenance database).
_LOCK = 0x6C696665626F6174
#: Cluster settings that belong to a machine or would make a restored copy archive, follow or wait for another server.
_NOT_RESTORED = frozenset({
    "archive_cleanup_command", "archive_command", "archive_library", "archive_mode", "cluster_name", "config_file", "data_directory",
    "external_pid_file", "hba_file", "ident_file", "listen_addresses", "port", "primary_conninfo", "primary_slot_name", "promote_trigger_file",
    "recovery_end_command", "recovery_min_apply_delay", "restore_command", "ssl_passphrase_command", "synchronous_standby_names",
    "synchronized_standby_slots", "unix_socket_directories",
})


def needed(client: Client, connection: Any, database: str) -> dict[str, Any]:
    """{"roles": [...], "memberships": [...]}: owners, grantees, settings' roles, their groups and members; sorted, plain JSON."""
    oids = columns(client.rows(connection, """
        WITH RECURSIVE d AS (SELECT oid, datdba, datacl FROM pg_database WHERE datname = %s),
        direct AS (
            SELECT datdba AS oid FROM d UNION SELECT 10::oid
            UNION SELECT s.refobjid FROM pg_shdepend s, d WHERE s.refclassid = 'pg_authid'::regclass
                AND (s.dbid = d.oid OR (s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = d.oid))
            UNION SELECT a.grantee FROM d, aclexplode(d.datacl) a
            UNION SELECT c.setrole FROM pg_db_role_setting c, d WHERE c.setdatabase = d.oid),
        members AS (SELECT oid FROM direct WHERE oid <> 0 UNION SELECT m.member FROM pg_auth_members m JOIN members g ON m.roleid = g.oid),
        groups AS (SELECT oid FROM members UNION SELECT m.roleid FROM pg_auth_members m JOIN groups g ON m.member = g.oid)
        SELECT DISTINCT r.oid::bigint FROM groups JOIN pg_authid r USING (oid) WHERE r.rolname !~ '^pg_'""", (database,)))
    rows = client.rows(connection, f"""
        SELECT r.rolname, {', '.join('r.' + name for name in _ATTRIBUTES)}, r.rolconnlimit, r.rolpassword, r.rolvaliduntil::text,
               shobj_description(r.oid, 'pg_authid'),
               coalesce((SELECT c.setconfig FROM pg_db_role_setting c WHERE c.setrole = r.oid AND c.setdatabase = 0), '{{}}')
        FROM pg_authid r WHERE r.oid = ANY(%s::bigint[]::oid[]) ORDER BY r.rolname COLLATE "C" """, (oids,))
    options = "m.inherit_option, m.set_option" if version_of(connection) >= 160000 else "NULL, NULL"
    memberships = client.rows(connection, f"""
        SELECT DISTINCT g.rolname COLLATE "C", u.rolname COLLATE "C", m.admin_option, {options} FROM pg_auth_members m
        JOIN pg_authid g ON g.oid = m.roleid JOIN pg_authid u ON u.oid = m.member
        WHERE u.oid = ANY(%s::bigint[]::oid[]) AND (g.oid = ANY(%s::bigint[]::oid[]) OR g.rolname ~ '^pg_') ORDER BY 1, 2, 3""", (oids, oids))
    names = list(_ATTRIBUTES)
    return {
        "roles": [{
            "name": row[0], "attributes": dict(zip(names, row[1:1 + len(names)])), "limit": row[-5], "password": row[-4], "valid_until": row[-3],
            "comment": row[-2], "settings": [item.split("=", 1) for item in row[-1]],
        } for row in rows],
        "memberships": [list(row) for row in memberships],
    }


def apply(client: Client, wanted: dict[str, Any]) -> list[str]:
    """Create missing roles with all that belongs to them, in one transaction. Returns the differences of those that were there."""
    psycopg2 = need("psycopg2")
    connection = client.connect(client.maintenance())
    try:
        connection.autocommit = False
        # The statements hold password verifiers: keep them out of the server's log and statistics.
        for setting in ("log_statement = none", "log_min_duration_statement = -1", "log_min_duration_sample = -1", "log_min_error_statement = panic",
                        "log_duration = off", "auto_explain.log_min_duration = -1", "pg_stat_statements.track_utility = off", "pgaudit.log = none"):
            client.rows(connection, f"SET LOCAL {setting}")
        client.rows(connection, "SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        present = {role["name"]: role for role in _present(client, connection, [role["name"] for role in wanted["roles"]])}
        missing = [role for role in wanted["roles"] if role["name"] not in present]
        for role in missing:
            for statement in _create(role):
                client.rows(connection, statement)
        differences = _memberships(client, connection, wanted["memberships"], {role["name"] for role in missing})
        connection.commit()
    except psycopg2.Error as error:
        raise client.error(error) from None
    finally:
        connection.close()
    for role in wanted["roles"]:
        have = present.get(role["name"])
        if have is not None:
            parts = [key for key in ("attributes", "limit", "password", "valid_until") if have[key] != role[key]]
            parts += ["settings"] if sorted(have["settings"]) != sorted(role["settings"]) else []
            if parts:
                differences.append(f"role {role['name']} is there and was left as it is; it differs in {', '.join(parts)}")
    return differences


def _present(client: Client, connection: Any, names: list[str]) -> list[dict[str, Any]]:
    rows = client.rows(connection, f"""
        SELECT r.rolname, {', '.join('r.' + name for name in _ATTRIBUTES)}, r.rolconnlimit, r.rolpassword, r.rolvaliduntil::text,
               coalesce((SELECT c.setconfig FROM pg_db_role_setting c WHERE c.setrole = r.oid AND c.setdatabase = 0), '{{}}')
        FROM pg_authid r WHERE r.rolname = ANY(%s::name[])""", (names,))
    keys = list(_ATTRIBUTES)
    return [{
        "name": row[0], "attributes": dict(zip(keys, row[1:1 + len(keys)])), "limit": row[-4], "password": row[-3], "valid_until": row[-2],
        "settings": [item.split("=", 1) for item in row[-1]],
    } for row in rows]


def _create(role: dict[str, Any]) -> list[str]:
    name = quote(role["name"])
    words = [_ATTRIBUTES[key][0 if role["attributes"][key] else 1] for key in _ATTRIBUTES]
    words.append(f"CONNECTION LIMIT {int(role['limit'])}")
    if role["password"] is not None:
        words.append(f"PASSWORD {literal(role['password'])}")
    if role["valid_until"] is not None:
        words.append(f"VALID UNTIL {literal(role['valid_until'])}")
    statements = [f"CREATE ROLE {name} WITH {' '.join(words)}"]
    statements += [f"ALTER ROLE {name} SET {setting_name(key)} = {setting_value(key, value)}" for key, value in role["settings"]]
    if role["comment"] is not None:
        statements.append(f"COMMENT ON ROLE {name} IS {literal(role['comment'])}")
    return statements


def _memberships(client: Client, connection: Any, wanted: list[list[Any]], created: set[str]) -> list[str]:
    """Grant what involves a role we just created; between roles that were there before, only tell."""
    have = {(row[0], row[1]) for row in client.rows(connection, """
        SELECT g.rolname, u.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member""")}
    differences = []
    for group, member, admin, inherits, sets in wanted:
        if group in created or member in created:
            options = ["ADMIN OPTION"] if admin else []
            if version_of(connection) >= 160000 and inherits is not None:
                options = [f"ADMIN {'TRUE' if admin else 'FALSE'}", f"INHERIT {'TRUE' if inherits else 'FALSE'}", f"SET {'TRUE' if sets else 'FALSE'}"]
            client.rows(connection, f"GRANT {quote(group)} TO {quote(member)}" + (f" WITH {', '.join(options)}" if options else ""))
        elif (group, member) not in have:
            differences.append(f"role {member} is no member of {group} any more; both were there and were left as they are")
    return differences


def encode(wanted: dict[str, Any]) -> bytes:
    """The same roles give the same bytes."""
    return json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> dict[str, Any]:
    """The reverse of encode()."""
    found: dict[str, Any] = json.loads(data)
    return found


def cluster_settings(client: Client, connection: Any) -> list[list[str]]:
    """[[name, value]] of ALTER SYSTEM, without what belongs to a machine or a replication set-up."""
    rows = client.rows(connection, """
        SELECT DISTINCT ON (name) name, setting FROM pg_file_settings WHERE sourcefile ~ '/postgresql\\.auto\\.conf$' AND name IS NOT NULL
        ORDER BY name, seqno DESC""")
    return [[name, value] for name, value in rows if name not in _NOT_RESTORED and not name.startswith("recovery_target")]


def apply_cluster_settings(client: Client, wanted: list[list[str]]) -> tuple[list[str], list[str]]:
    """ALTER SYSTEM what is not set there; (differences, names of settings that wait for a restart of the server)."""
    connection = client.connect(client.maintenance())
    try:
        have = dict(cluster_settings(client, connection))
        known = set(columns(client.rows(connection, "SELECT name FROM pg_settings")))
        differences = []
        for name, value in wanted:
            if name in have:
                if have[name] != value:
                    differences.append(f"cluster setting {name} is there and was left as it is; it differs from the captured one")
            elif name not in known:
                differences.append(f"cluster setting {name} does not exist on this server: its version differs or its library is not loaded yet")
            else:
                client.rows(connection, f"ALTER SYSTEM SET {setting_name(name)} = {setting_value(name, value)}")
        client.rows(connection, "SELECT pg_reload_conf()")
        waiting = columns(client.rows(connection, """
            SELECT f.name FROM pg_file_settings f JOIN pg_settings s USING (name)
            WHERE f.sourcefile ~ '/postgresql\\.auto\\.conf$' AND s.context = 'postmaster' AND NOT f.applied ORDER BY 1"""))
        return differences, waiting
    finally:
        connection.close()
