"""The schema of a database: tables, columns, keys, sample values; as CREATE TABLE statements and as plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

Dialect = Literal["sqlite", "postgres"]

#: A sample value in the DDL is cut at this many characters.
SAMPLE_CHARACTERS = 40
#: Words that are no name without quotes. SQLite: the keywords that have no fallback to an identifier in its parser.
_RESERVED_SQLITE = """
add all alter and as autoincrement between case check collate commit constraint create default deferrable delete
distinct drop else escape except exists foreign from group having in index insert intersect into is isnull join
limit not notnull null nothing on or order primary references returning select set table then to transaction union
unique update using values when where"""
#: PostgreSQL: the reserved words of appendix C of its manual, with those that may be function or type names.
_RESERVED_POSTGRES = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
returning right select session_user similar some symmetric table tablesample then to trailing true union unique
user using variadic verbose when where window with"""
_PLAIN_NAME = {"sqlite": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), "postgres": re.compile(r"[a-z_][a-z0-9_]*")}
_RESERVED = {"sqlite": frozenset(_RESERVED_SQLITE.split()), "postgres": frozenset(_RESERVED_POSTGRES.split())}


def quoted(name: str, dialect: Dialect) -> str:
    """`name` as an identifier of the dialect: in double quotes only where it needs them."""
    if _PLAIN_NAME[dialect].fullmatch(name) and name.lower() not in _RESERVED[dialect]:
        return name
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Column:
    """A column. `samples`: up to three distinct values as SQL literals, the most frequent first."""

    name: str
    type: str  # as declared; empty where the declaration has none
    primary_key: bool = False
    not_null: bool = False
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignKey:
    """`columns` of the table that holds it refer to the columns `references` of `table`, position by position."""

    columns: tuple[str, ...]
    table: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table or view. `rows`: the number of rows; of a view 0, of a PostgreSQL table the server's estimate."""

    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
    rows: int = 0

    def ddl(self, dialect: Dialect, samples: int = 3) -> str:
        """The CREATE TABLE statement, with up to `samples` sample values in a comment after each column."""
        keys = [column.name for column in self.columns if column.primary_key]
        lines = []
        for column in self.columns:
            text = " ".join(part for part in (quoted(column.name, dialect), column.type) if part)
            text += " PRIMARY KEY" if keys == [column.name] else ""
            text += " NOT NULL" if column.not_null and keys != [column.name] else ""
            lines.append((text, ", ".join(column.samples[:samples])))
        if len(keys) > 1:
            lines.append((f"PRIMARY KEY ({_names(keys, dialect)})", ""))
        for key in self.foreign_keys:
            target = f"{quoted(key.table, dialect)} ({_names(key.references, dialect)})"
            lines.append((f"FOREIGN KEY ({_names(key.columns, dialect)}) REFERENCES {target}", ""))
        body = "\n".join(
            f"  {text}{',' if number < len(lines) else ''}{f' -- {comment}' if comment else ''}"
            for number, (text, comment) in enumerate(lines, 1)
        )
        return f"CREATE TABLE {quoted(self.name, dialect)} (\n{body}\n);"


def _names(names: Iterable[str], dialect: Dialect) -> str:
    return ", ".join(quoted(name, dialect) for name in names)


@dataclass(frozen=True)
class Schema:
    """The tables of a database, in the order of their creation."""

    dialect: Dialect
    tables: tuple[Table, ...]

    def plain(self) -> dict[str, Any]:
        """The schema as a value that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Schema:
        """The schema of which `plain` made `value`. Raises ValueError if it is another kind of value."""
        try:
            if value["dialect"] not in _PLAIN_NAME:
                raise ValueError(f"not a schema: dialect {value['dialect']!r}")
            return cls(value["dialect"], tuple(_table_from_plain(table) for table in value["tables"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a schema: {type(error).__name__}: {error}") from None

    def table(self, name: str) -> Table:
        """The table of this name, in any case. Raises KeyError."""
        found = next((table for table in self.tables if table.name.lower() == name.lower()), None)
        if found is None:
            raise KeyError(name)
        return found

    def only(self, names: Iterable[str]) -> Schema:
        """The schema with these tables alone, in its own order. Foreign keys to absent tables are removed."""
        kept = {name.lower() for name in names}
        tables = (
            replace(table, foreign_keys=tuple(key for key in table.foreign_keys if key.table.lower() in kept))
            for table in self.tables
            if table.name.lower() in kept
        )
        return Schema(self.dialect, tuple(tables))

    def ddl(self, samples: int = 3) -> str:
        """CREATE TABLE statements of all tables, with up to `samples` sample values in a comment after each column."""
        return "\n".join(table.ddl(self.dialect, samples) for table in self.tables)

    @classmethod
    def from_ddl(cls, text: str, dialect: Dialect) -> Schema:
        """The schema that the CREATE TABLE statements in `text` declare; other statements (INSERT rows) are ignored.

        Raises ValueError if a CREATE TABLE statement does not parse or there is none.
        """
        found: dict[str, Table] = {}
        for number, statement in enumerate(_statements(text), 1):
            if not re.match(r"create\s+(temp\w*\s+|unlogged\s+)*table\b", statement, re.IGNORECASE):
                continue
            try:
                tree = sqlglot.parse_one(statement, read=dialect)
            except (SqlglotError, RecursionError) as error:
                reason = (str(error).splitlines() or [""])[0]
                raise ValueError(f"statement {number} of the schema does not parse: {reason}") from None
            if isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema):
                table = _table_of(tree, statement, dialect)
                found.setdefault(table.name.lower(), table)
        if not found:
            raise ValueError("the schema holds no CREATE TABLE statement with columns")
        return cls(dialect, tuple(_with_references(table, found) for table in found.values()))


def _table_from_plain(value: Mapping[str, Any]) -> Table:
    columns = tuple(Column(**{**column, "samples": tuple(column["samples"])}) for column in value["columns"])
    keys = tuple(
        ForeignKey(tuple(key["columns"]), key["table"], tuple(key["references"])) for key in value["foreign_keys"]
    )
    return Table(value["name"], columns, keys, value["rows"])


_TOKEN = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*(?:'|\Z)|\"(?:[^\"]|\"\")*(?:\"|\Z)|;", re.DOTALL)


def _statements(text: str) -> list[str]:
    """The statements of `text`, without comments. Only semicolons outside of quotes and comments separate them: one
    that does not parse must not cost the others, so this does not leave the separation to the parser."""
    parts = [""]
    end = 0
    for token in _TOKEN.finditer(text):
        parts[-1] += text[end : token.start()]
        end = token.end()
        if token[0] == ";":
            parts.append("")
        else:
            parts[-1] += " " if token[0].startswith(("--", "/*")) else token[0]
    parts[-1] += text[end:]
    return [part.strip() for part in parts if part.strip()]


_TYPE = re.compile(
    r"\s*((?:(?!(?:primary|not|null|unique|check|default|collate|references|constraint|generated|as|auto_?increment|"
    r"comment|on|with|without|time)\b)[a-z_]\w*\s*)+(?:\([\w\s,]*\))?(?:\s*with(?:out)?\s+time\s+zone)?(?:\s*\[\])*)",
    re.IGNORECASE,
)


def _declared_type(column: exp.ColumnDef, statement: str, dialect: Dialect) -> str:
    """The type as it is written after the column's name; sqlglot would write VARCHAR(20) as SQLite's TEXT(20)."""
    kind, end = column.args.get("kind"), column.this.meta.get("end")
    if kind is None:
        return ""
    found = _TYPE.match(statement, end + 1) if end is not None else None
    return " ".join(found[1].split()) if found else kind.sql(dialect)


def _table_of(tree: exp.Create, statement: str, dialect: Dialect) -> Table:
    schema = tree.this
    keys = {name.lower() for node in schema.find_all(exp.PrimaryKey) for name in _column_names(node.expressions)}
    columns, foreign = [], []
    for item in schema.expressions:
        if isinstance(item, exp.ColumnDef):
            kinds = [constraint.kind for constraint in item.args.get("constraints") or ()]
            primary = item.name.lower() in keys or any(isinstance(k, exp.PrimaryKeyColumnConstraint) for k in kinds)
            not_null = any(isinstance(k, exp.NotNullColumnConstraint) and not k.args.get("allow_null") for k in kinds)
            columns.append(Column(item.name, _declared_type(item, statement, dialect), primary, not_null))
            foreign += [_foreign_key((item.name,), kind) for kind in kinds if isinstance(kind, exp.Reference)]
        else:
            for node in item.find_all(exp.ForeignKey):
                foreign.append(_foreign_key(_column_names(node.expressions), node.args["reference"]))
    if not columns:
        raise ValueError(f"table {schema.this.name} of the schema has no columns")
    return Table(schema.this.name, tuple(columns), tuple(foreign))


def _column_names(nodes: Iterable[exp.Expression]) -> tuple[str, ...]:
    return tuple(node.this.name if isinstance(node, exp.Ordered) else node.name for node in nodes)


def _foreign_key(columns: tuple[str, ...], reference: exp.Reference) -> ForeignKey:
    target = reference.this
    if isinstance(target, exp.Schema):
        return ForeignKey(columns, target.this.name, _column_names(target.expressions))
    return ForeignKey(columns, target.name, ())


def _with_references(table: Table, tables: Mapping[str, Table]) -> Table:
    """The table with the columns of its foreign keys filled in: REFERENCES without columns means the primary key."""
    keys = []
    for key in table.foreign_keys:
        target = tables.get(key.table.lower())
        references = key.references
        if not references and target is not None:
            references = tuple(column.name for column in target.columns if column.primary_key)
        if target is not None and len(references) == len(key.columns):
            keys.append(ForeignKey(key.columns, target.name, references))
    return replace(table, foreign_keys=tuple(dict.fromkeys(keys)))
