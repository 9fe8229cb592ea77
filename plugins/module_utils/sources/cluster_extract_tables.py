# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""On the private copy: move a few tables into a schema of their own, with what belongs to them and without what cannot stand alone.

Afterwards nothing in the schema refers to anything outside of it but system objects and extensions, so its dump touches nothing
that exists elsewhere. Types and collations come along; what was left out is told in words.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError, SourceError, TargetError
from .cluster_extract_names import shown
from .postgresql_client import Client, columns, quote, version_of

#: What is dropped with the tables' own names; each of them could call, or refer to, something that is not picked.
_ATTACHED = {
    "trigger": (
        """SELECT tgrelid::bigint, tgname, 'the function it calls is not part of a table' FROM pg_trigger
        WHERE NOT tgisinternal AND tgparentid = 0 AND tgrelid = ANY(%s::bigint[]::oid[]) ORDER BY 1, 2""",
        "DROP TRIGGER {name} ON {table}"),
    "rule": (
        "SELECT ev_class::bigint, rulename, 'it may act on other tables' FROM pg_rewrite WHERE ev_class = ANY(%s::bigint[]::oid[]) ORDER BY 1, 2",
        "DROP RULE {name} ON {table}"),
    "policy": (
        """SELECT polrelid::bigint, polname, 'it may ask other tables; row security stays on' FROM pg_policy
        WHERE polrelid = ANY(%s::bigint[]::oid[]) ORDER BY 1, 2""",
        "DROP POLICY {name} ON {table}"),
}
#: Objects of the schema that depend on something outside of it which is no system object.
_OUTSIDE = """
    WITH s AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
    own(classid, objid) AS (
        SELECT 'pg_class'::regclass::oid, c.oid FROM pg_class c, s WHERE c.relnamespace = s.oid
        UNION ALL SELECT 'pg_type'::regclass::oid, t.oid FROM pg_type t, s WHERE t.typnamespace = s.oid
        UNION ALL SELECT 'pg_attrdef'::regclass::oid, a.oid FROM s, pg_attrdef a JOIN pg_class c ON c.oid = a.adrelid WHERE c.relnamespace = s.oid
        UNION ALL SELECT 'pg_constraint'::regclass::oid, k.oid FROM pg_constraint k, s WHERE k.connamespace = s.oid
        UNION ALL SELECT 'pg_collation'::regclass::oid, l.oid FROM pg_collation l, s WHERE l.collnamespace = s.oid)
    SELECT DISTINCT d.classid::regclass::text, d.objid::bigint, d.refclassid::regclass::text,
           CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE d.refobjid END::bigint,
           e.extname, m.nspname, pg_describe_object(d.classid, d.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0)
    FROM pg_depend d JOIN own o ON o.classid = d.classid AND o.objid = d.objid
    LEFT JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
    LEFT JOIN pg_depend x ON x.classid = d.refclassid AND x.deptype = 'e'
        AND x.objid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE d.refobjid END
    LEFT JOIN pg_extension e ON e.oid = x.refobjid LEFT JOIN pg_namespace m ON m.oid = e.extnamespace
    WHERE d.refobjid >= 16384 AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_extension'::regclass)
      AND NOT EXISTS (SELECT FROM own r WHERE r.classid = d.refclassid AND r.objid = d.refobjid)
    ORDER BY 1, 2, 3, 4"""
_WHOLE = "extract the whole database instead"


class Isolation:
    """One schema made of picked tables. run() once; then left_out, extensions {name: schema}, moved."""

    def __init__(self, client: Client, connection: Any, database: str, picked: list[tuple[str, str]], schema: str) -> None:
        self._client = client
        self._connection = connection
        self._where = f"database {shown(database)} at the target"
        self._picked = picked
        self._schema = schema
        self._labels: dict[int, str] = {}
        self._settled: set[int] = set()
        self.left_out: list[str] = []
        self.extensions: dict[str, str] = {}
        #: Per picked table (as asked): the names of its own rows' places, itself and its partitions.
        self.moved: list[tuple[str, list[str]]] = []

    def run(self) -> None:
        """Raises TargetError for a table that is not there, ConfigError or SourceError for one that cannot be taken."""
        for schema, name in self._picked:
            self._find(schema, name)
        self._refuse_same_names()
        oids = list(self._labels)
        self._detach(oids)
        for kind, (query, statement) in _ATTACHED.items():
            for oid, name, why in self._rows(query, (oids,)):
                self._leave(f"{kind} {name} of {self._labels[oid]}", why)
                self._rows(statement.format(name=quote(name), table=self._sql(oid)))
        for schema, name in self._rows("""
                SELECT n.nspname, s.stxname FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
                WHERE s.stxrelid = ANY(%s::bigint[]::oid[]) ORDER BY 1, 2""", (oids,)):
            self._leave(f"extended statistics {schema}.{name}", "they speed up plans only")
            self._rows(f"DROP STATISTICS {quote(schema)}.{quote(name)}")
        self._rows(f"CREATE SCHEMA {quote(self._schema)}")
        for oid in oids:
            self._rows(f"ALTER TABLE {self._sql(oid)} SET SCHEMA {quote(self._schema)}")
        while self._settle_one():
            pass
        self._say_what_is_empty(oids)

    def _rows(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        return self._client.rows(self._connection, statement, parameters)

    def _leave(self, what: str, why: str) -> None:
        self.left_out.append(self._said(f"{what}: {why}"))

    def _said(self, text: str) -> str:
        """The schema that only we know is no word for people."""
        return shown(text.replace(f"{self._schema}.", ""))

    def _sql(self, oid: int) -> str:
        schema, name = self._rows("SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s", (oid,))[0]
        return f"{quote(schema)}.{quote(name)}"

    # -- which tables

    def _find(self, schema: str, name: str) -> None:
        label = shown(f"{schema}.{name}")
        rows = self._rows("""
            SELECT c.oid::bigint, c.relkind::text, n.nspname ~ '^pg_' OR n.nspname = 'information_schema',
                   (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s""", (schema, name))
        if not rows:
            raise TargetError(f"there is no table {label}", self._where, "correct the name (case counts), or choose another target; nothing was changed")
        oid, kind, system, extension = rows[0]
        if kind not in "rp" or system or extension:
            what = "one of the system's" if system else f"one of extension {extension}" if extension else "no table with rows of its own"
            raise ConfigError(f"{label} is {what}", self._where, "pick the tables behind it; nothing was changed")
        own = [name]
        self._labels[oid] = label
        for part, part_kind, parent, part_label, part_name in self._rows("""
                SELECT t.relid::oid::bigint, c.relkind::text, t.parentrelid::oid::bigint, n.nspname || '.' || c.relname, c.relname
                FROM pg_partition_tree(%s::bigint::oid::regclass) t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE t.relid <> %s::bigint::oid ORDER BY t.level, 4""", (oid, oid)):
            if part_kind in "rp":
                self._labels.setdefault(part, shown(part_label))
                own.append(part_name)
            else:
                self._leave(f"partition {part_label} of {label}", "its rows lie on another server")
                self._rows(f"ALTER TABLE {self._sql(parent)} DETACH PARTITION {self._sql(part)}")
        self.moved.append((label, own))

    def _refuse_same_names(self) -> None:
        seen: dict[str, str] = {}
        for oid, label in self._labels.items():
            name = self._rows("SELECT relname FROM pg_class WHERE oid = %s", (oid,))[0][0]
            if name in seen:
                raise ConfigError(f"{seen[name]} and {label} would have the same name in one schema", self._where, "extract them one after the other")
            seen[name] = label

    def _detach(self, oids: list[int]) -> None:
        for child, parent, label, partition in self._rows("""
                SELECT i.inhrelid::bigint, i.inhparent::bigint, n.nspname || '.' || p.relname, c.relispartition
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace
                WHERE i.inhrelid = ANY(%(oids)s::bigint[]::oid[]) AND NOT i.inhparent = ANY(%(oids)s::bigint[]::oid[]) ORDER BY 1""", {"oids": oids}):
            if partition:
                self._leave(f"{self._labels[child]} as a partition of {label}", "that was not picked; it is a table of its own")
                self._rows(f"ALTER TABLE {self._sql(parent)} DETACH PARTITION {self._sql(child)}")
            else:
                self._leave(f"{self._labels[child]} as a child of {label}", "that was not picked; it is a table of its own")
                self._rows(f"ALTER TABLE {self._sql(child)} NO INHERIT {self._sql(parent)}")
        for parent, label in self._rows("""
                SELECT i.inhparent::bigint, n.nspname || '.' || c.relname
                FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE i.inhparent = ANY(%(oids)s::bigint[]::oid[]) AND NOT i.inhrelid = ANY(%(oids)s::bigint[]::oid[]) ORDER BY 2""", {"oids": oids}):
            self._leave(f"rows of {label}, a child of {self._labels[parent]}", "it was not picked")

    # -- what they need

    def _settle_one(self) -> bool:
        """Mend the first thing that reaches out of the schema; False when nothing does."""
        stuck = ""
        for kind, oid, needed, other, extension, home, what, reason in self._rows(_OUTSIDE, {"schema": self._schema}):
            if extension is not None:
                self.extensions[extension] = home
                continue
            if needed == "pg_collation" and other not in self._settled:
                self._settled.add(other)
                self._move(
                    "COLLATION", "SELECT n.nspname, x.collname FROM pg_collation x JOIN pg_namespace n ON n.oid = x.collnamespace WHERE x.oid = %s", other)
                return True
            if needed == "pg_type" and self._move_type(other):
                return True
            drop = {"pg_attrdef": self._drop_default, "pg_constraint": self._drop_constraint, "pg_class": self._drop_index}.get(kind)
            if drop is not None and needed != "pg_type" and drop(oid, reason):
                return True
            stuck = stuck or self._said(f"{what} needs {reason}")
        if stuck:
            raise SourceError(f"the tables cannot stand by themselves ({stuck})", self._where, f"{_WHOLE}; nothing was changed")
        return False

    def _move(self, word: str, query: str, oid: int) -> None:
        schema, name = self._rows(query, (oid,))[0]
        self._rows(f"ALTER {word} {quote(schema)}.{quote(name)} SET SCHEMA {quote(self._schema)}")

    def _move_type(self, oid: int) -> bool:
        kind, relation = self._rows(
            "SELECT t.typtype::text, coalesce(c.relkind::text, '') FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid = %s", (oid,))[0]
        if kind not in "edrcm" or relation not in ("", "c"):
            return False
        together = [oid]
        if kind in "rm":  # neither moves with the other, and the dump of a range names its multirange
            columns_of = "rngtypid::bigint, rngmultitypid::bigint" if version_of(self._connection) >= 140000 else "rngtypid::bigint"
            together = list(self._rows(f"SELECT {columns_of} FROM pg_range WHERE {oid} IN ({columns_of})")[0])
        for one in together:
            if one in self._settled:
                return False
            self._settled.add(one)
            self._move("TYPE", "SELECT n.nspname, x.typname FROM pg_type x JOIN pg_namespace n ON n.oid = x.typnamespace WHERE x.oid = %s", one)
        return True

    def _drop_default(self, oid: int, reason: str) -> bool:
        rows = self._rows("""
            SELECT a.adrelid::bigint, t.attname, t.attgenerated::text FROM pg_attrdef a JOIN pg_attribute t ON t.attrelid = a.adrelid AND t.attnum = a.adnum
            WHERE a.oid = %s""", (oid,))
        relation, column, generated = rows[0]
        what = "expression of generated column" if generated else "default of"
        self._leave(f"{what} {self._labels.get(relation, '')}.{column}", f"it needs {reason}" + ("; the values are kept" if generated else ""))
        self._rows(f"ALTER TABLE {self._sql(relation)} ALTER COLUMN {quote(column)} DROP {'EXPRESSION' if generated else 'DEFAULT'}")
        return True

    def _drop_constraint(self, oid: int, reason: str) -> bool:
        name, relation, domain, kind, inherited = self._rows("""
            SELECT conname, conrelid::bigint, contypid::bigint, contype::text, conparentid <> 0 OR (coninhcount > 0 AND NOT conislocal)
            FROM pg_constraint WHERE oid = %s""", (oid,))[0]
        if inherited:
            return False  # it goes with its parent's
        if domain:
            owner = self._rows("SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = %s", (domain,))[0]
            self._leave(f"constraint {name} of domain {owner[1]}", f"it needs {reason}")
            self._rows(f"ALTER DOMAIN {quote(owner[0])}.{quote(owner[1])} DROP CONSTRAINT {quote(name)}")
        else:
            word = "foreign key" if kind == "f" else "constraint"
            self._leave(f"{word} {name} of {self._labels.get(relation, '')}", f"{reason} was not picked" if kind == "f" else f"it needs {reason}")
            self._rows(f"ALTER TABLE {self._sql(relation)} DROP CONSTRAINT {quote(name)}")
        return True

    def _drop_index(self, oid: int, reason: str) -> bool:
        kind, partition, table = self._rows("""
            SELECT c.relkind::text, c.relispartition, i.indrelid::bigint FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
            WHERE c.oid = %s""", (oid,))[0]
        if kind not in "iI" or partition:
            return False
        name = self._sql(oid)
        self._leave(f"index {name.rpartition('.')[2]} of {self._labels.get(table, '')}", f"it needs {reason}")
        self._rows(f"DROP INDEX {name}")
        return True

    # -- what is not in a table

    def _say_what_is_empty(self, oids: list[int]) -> None:
        for oid in columns(self._rows("SELECT oid::bigint FROM pg_class WHERE oid = ANY(%s::bigint[]::oid[]) AND relpersistence = 'u' ORDER BY 1", (oids,))):
            self._leave(f"rows of {self._labels[oid]}", "it is unlogged, and no physical snapshot holds such rows")
        for oid, name in self._rows("""
                SELECT a.attrelid::bigint, a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid
                WHERE a.attrelid = ANY(%s::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r'
                  AND 'oid'::regtype IN (t.oid, t.typbasetype) ORDER BY 1, a.attnum""", (oids,)):
            count = self._rows(f"SELECT count(DISTINCT x.{quote(name)}) FROM ONLY {self._sql(oid)} x JOIN pg_largeobject_metadata m ON m.oid = x.{quote(name)}")
            if count[0][0]:
                self._leave(f"{count[0][0]} large objects that {self._labels[oid]}.{name} names", f"they are not part of a table; {_WHOLE} to have them")
