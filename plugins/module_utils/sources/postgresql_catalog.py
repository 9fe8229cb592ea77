# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a database is besides its dump: its own properties, and what it holds, read from the system catalogs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

from ..errors import SourceError
from .postgresql_client import Client, quote, version_of

#: Settings that the server itself keeps as lists of quoted names.
_LIST_SETTINGS = frozenset({
    "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories",
})
#: Database settings with this prefix are marks of this collection and no content.
MARK = "lifeboat."


@dataclass(frozen=True)
class Table:
    """One relation with rows of its own."""

    oid: int
    schema: str
    name: str
    kind: str
    columns: tuple[str, ...]
    bytes: int
    condition: str = ""
    populated: bool = True

    @property
    def sql(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"


def databases(client: Client, connection: Any, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """name -> {oid, connections (datallowconn), limit, bytes, stage (mark)} of those that exist."""
    rows = client.rows(connection, """
        SELECT d.datname, d.oid::bigint, d.datallowconn, d.datconnlimit, pg_database_size(d.oid),
               (SELECT substr(s, length('lifeboat.stage=') + 1) FROM unnest(r.setconfig) s WHERE s LIKE 'lifeboat.stage=%%')
        FROM pg_database d LEFT JOIN pg_db_role_setting r ON r.setdatabase = d.oid AND r.setrole = 0
        WHERE d.datname = ANY(%s::name[])""", (list(names),))
    return {row[0]: {"oid": row[1], "connections": row[2], "limit": row[3], "bytes": row[4], "stage": row[5]} for row in rows}


def properties(client: Client, connection: Any, database: str) -> dict[str, Any]:
    """What CREATE and ALTER DATABASE need to make the same database again: plain JSON, no secrets.

    connection: to the maintenance database. Names in shared catalogs are bytes without an encoding, so they are read and
    written through the same database, never through one that may have another encoding.
    """
    version = version_of(connection)
    provider = "d.datlocprovider::text" if version >= 150000 else "'c'"
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale" if version >= 150000 else "NULL"
    rules = "d.daticurules" if version >= 160000 else "NULL"
    rows = client.rows(connection, f"""
        SELECT d.oid::bigint, pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, {provider}, {locale}, {rules},
               d.datconnlimit, d.datistemplate, shobj_description(d.oid, 'pg_database'), t.spcname,
               pg_database_size(d.oid)
        FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = %s""", (database,))
    if not rows:
        raise SourceError(f"database {database!r} does not exist", client.place, "correct the database option, or restore it")
    oid, owner, encoding, collate, ctype, provider, locale, rules, limit, template, comment, tablespace, size = rows[0]
    grants = client.rows(connection, """
        SELECT coalesce(g.rolname, ''), r.rolname, a.privilege_type, a.is_grantable
        FROM pg_database d, aclexplode(d.datacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee JOIN pg_roles r ON r.oid = a.grantor
        WHERE d.oid = %s AND d.datacl IS NOT NULL ORDER BY 1, 2, 3""", (oid,))
    default_acl = client.rows(connection, "SELECT datacl IS NULL FROM pg_database WHERE oid = %s", (oid,))[0][0]
    settings = client.rows(connection, """
        SELECT coalesce(r.rolname, ''), s.item FROM pg_db_role_setting c CROSS JOIN LATERAL unnest(c.setconfig) WITH ORDINALITY s(item, place)
        LEFT JOIN pg_roles r ON r.oid = c.setrole WHERE c.setdatabase = %s ORDER BY 1, s.place""", (oid,))
    return {
        "oid": oid, "owner": owner, "encoding": encoding, "collate": collate, "ctype": ctype, "provider": provider, "locale": locale,
        "icu_rules": rules, "limit": limit, "template": template, "comment": comment, "tablespace": tablespace, "bytes": size,
        "grants": None if default_acl else [list(row) for row in grants],
        "settings": [[role, *item.split("=", 1)] for role, item in settings if not item.startswith(MARK)],
    }


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """The properties that a restored copy must share."""
    return {key: value for key, value in found.items() if key not in ("oid", "bytes", "tablespace")}


def create_sql(name: str, wanted: dict[str, Any], version: int) -> str:
    """CREATE DATABASE from template0 with the captured encoding and locale, closed to ordinary users until cutover."""
    parts = [
        f"CREATE DATABASE {quote(name)} WITH TEMPLATE template0 ENCODING {literal(wanted['encoding'])}",
        f"LC_COLLATE {literal(wanted['collate'])} LC_CTYPE {literal(wanted['ctype'])} CONNECTION LIMIT 0",
    ]
    if wanted["provider"] != "c" and version >= 150000:
        if wanted["provider"] == "i":
            parts.append(f"LOCALE_PROVIDER icu ICU_LOCALE {literal(wanted['locale'])}")
            if wanted.get("icu_rules") and version >= 160000:
                parts.append(f"ICU_RULES {literal(wanted['icu_rules'])}")
        else:
            parts.append(f"LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(wanted['locale'])}")
    elif version >= 150000:
        parts.append("LOCALE_PROVIDER libc")
    return " ".join(parts)


def property_sql(name: str, wanted: dict[str, Any]) -> list[str]:
    """Statements that give a database its owner, grants, settings and comment; the connection limit comes with cutover."""
    target = f"DATABASE {quote(name)}"
    statements = [f"ALTER {target} OWNER TO {quote(wanted['owner'])}"]
    if wanted["grants"] is not None:
        statements.append(f"REVOKE ALL ON {target} FROM PUBLIC")
        statements.append(f"REVOKE ALL ON {target} FROM {quote(wanted['owner'])}")
        for grantee, _grantor, privilege, grantable in wanted["grants"]:
            to = quote(grantee) if grantee else "PUBLIC"
            statements.append(f"GRANT {_privilege(privilege)} ON {target} TO {to}" + (" WITH GRANT OPTION" if grantable else ""))
    for role, key, value in wanted["settings"]:
        subject = f"ROLE {quote(role)} IN {target}" if role else target
        statements.append(f"ALTER {subject} SET {setting_name(key)} = {setting_value(key, value)}")
    if wanted["comment"] is not None:
        statements.append(f"COMMENT ON {target} IS {literal(wanted['comment'])}")
    if wanted["template"]:
        statements.append(f"ALTER {target} IS_TEMPLATE true")
    return statements


def setting_name(key: str) -> str:
    """A setting's name, each part quoted (names of extensions have two)."""
    return ".".join(quote(part) for part in key.split("."))


def setting_value(key: str, value: str) -> str:
    """A stored setting as SET wants it; lists of names are kept as lists."""
    if key.lower() not in _LIST_SETTINGS:
        return literal(value)
    return ", ".join(literal(item) for item in split_names(value)) or "''"


def split_names(value: str) -> list[str]:
    """Split the server's list form ``a, "b c", "d""e"`` into its names."""
    items: list[str] = []
    position = 0
    while position < len(value):
        if value[position] in " ,\t\n":
            position += 1
            continue
        if value[position] == '"':
            item, position = "", position + 1
            while position < len(value):
                if value[position] != '"':
                    item += value[position]
                    position += 1
                elif value[position + 1:position + 2] == '"':
                    item += '"'
                    position += 2
                else:
                    break
            items.append(item)
            position += 1
        else:
            end = value.find(",", position)
            end = len(value) if end < 0 else end
            items.append(value[position:end].strip())
            position = end
    return items


def literal(value: str) -> str:
    """An SQL string literal that every server reads the same way, whatever standard_conforming_strings is."""
    text = value.replace("'", "''")
    return "E'" + text.replace("\\", "\\\\") + "'" if "\\" in text else f"'{text}'"


def _privilege(word: str) -> str:
    if word not in ("CREATE", "CONNECT", "TEMPORARY"):
        raise SourceError(f"unknown database privilege {word!r} in the snapshot", "", "use a newer version of this collection")
    return word


def tables(client: Client, connection: Any) -> list[Table]:
    """Every relation whose rows pg_dump takes: tables, leaf partitions, materialized views, configuration tables of extensions."""
    rows = client.rows(connection, """
        SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relispopulated, pg_relation_size(c.oid),
               array(SELECT a.attname::text COLLATE "C" FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1),
               d.objid IS NOT NULL, x.condition
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        LEFT JOIN LATERAL (
            SELECT e.extcondition[i] AS condition FROM pg_extension e, generate_subscripts(e.extconfig, 1) i WHERE e.extconfig[i] = c.oid LIMIT 1
        ) x ON true
        WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
        ORDER BY pg_relation_size(c.oid) DESC, n.nspname, c.relname""")
    return [
        Table(oid, schema, name, kind, tuple(names), size, condition or "", populated)
        for oid, schema, name, kind, populated, size, names, extension, condition in rows if not extension or condition is not None
    ]


def sequences(client: Client, connection: Any) -> list[tuple[str, str]]:
    """(schema, name) of every sequence pg_dump sets."""
    return [(row[0], row[1]) for row in client.rows(connection, """
        SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND (NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
               OR EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY(e.extconfig)))
        ORDER BY 1, 2""")]


def sequence_values(client: Client, connection: Any, names: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, bool]]:
    """(schema, name) -> (last_value, is_called)."""
    found: dict[tuple[str, str], tuple[int, bool]] = {}
    for start in range(0, len(names), 200):
        part = names[start:start + 200]
        statement = " UNION ALL ".join(
            f"SELECT {number}, last_value, is_called FROM {quote(schema)}.{quote(name)}" for number, (schema, name) in enumerate(part)
        )
        for number, last, called in client.rows(connection, statement):
            found[part[number]] = (int(last), bool(called))
    return found


def summary(client: Client, connection: Any) -> dict[str, Any]:
    """Facts that a preflight needs: extensions with versions, tablespaces in use, what is not dumped."""
    extensions = client.rows(connection, "SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1")
    spaces = client.rows(connection, """
        SELECT DISTINCT t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace
        WHERE c.reltablespace <> 0 AND t.spcname <> 'pg_global' ORDER BY 1""")
    foreign = client.rows(connection, "SELECT count(*) FROM pg_class WHERE relkind = 'f'")[0][0]
    return {"extensions": {row[0]: row[1] for row in extensions}, "tablespaces": [row[0] for row in spaces], "foreign_tables": foreign}
