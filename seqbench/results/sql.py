"""Query runs with SQL, as the tables `runs`, `events` and `cells`.

Each query fills a new in-memory database from the run folders, so there is no index that could be
stale. Records are read and validated by `collect`, not by DuckDB. Before the query runs, DuckDB
loses access to files, network and extensions.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from seqbench.errors import ConfigError
from seqbench.results.cells import aggregate
from seqbench.results.collect import Collected
from seqbench.results.compression import uncompressed
from seqbench.results.tables.export import Line, long_form
from seqbench.runs.events import read_events
from seqbench.runs.record import Measured, Record, RecordError, Score
from seqbench.wording import plain

if TYPE_CHECKING:
    import duckdb

# Columns of the table `runs`: fields of a record, of its score and of `measured`, and `solved` of
# its notes, the score's value as `score`, and the run's folder.
RUNS = """run_id status task model seed budget protocol length metric split score direction solved
    baseline optimum parameters steps tokens seconds throughput peak_memory_bytes device threads
    host git started finished source error metrics notes config folder"""
OWN = {"score": "DOUBLE", "solved": "BOOLEAN", "folder": "VARCHAR"}
OWN |= dict.fromkeys(("started", "finished"), "TIMESTAMP")
SHARED = ("run_id", "task", "model", "seed")
EVENT = {"step": "BIGINT", "split": "VARCHAR", "metric": "VARCHAR", "value": "DOUBLE"}
FROM_PAPER = ("published", "not_like_for_like")


def types_of(cls: type[Any]) -> dict[str, str]:
    """Return field -> SQL type of a class with type hints."""
    known = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", dict: "JSON", list: "VARCHAR[]"}
    found = {}
    for name, hint in get_type_hints(cls).items():
        kind = get_args(hint)[0] if isinstance(hint, UnionType) else hint
        found[name] = known.get(get_origin(kind) or kind, "VARCHAR")
    return found


_of_runs = types_of(Measured) | types_of(Score) | types_of(Record) | OWN
# Table -> column -> SQL type.
TABLES = {
    "runs": {name: _of_runs[name] for name in RUNS.split()},
    "events": {name: _of_runs[name] for name in SHARED} | EVENT,
    "cells": {name: kind for name, kind in types_of(Line).items() if name not in FROM_PAPER},
}

# Settings at connection time: nothing after it needs external access.
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # a table name never resolves to a Python variable
    "temp_directory": "",  # a large sort must not spill into the current folder
}
# Executed before the query; DuckDB accepts these only after connecting.
LOCKED = (
    "SET TimeZone = 'UTC'",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET lock_configuration = true",
    "BEGIN TRANSACTION READ ONLY",  # a SELECT may hold an INSERT
)
# First words of accepted statements.
SELECTS = {"SELECT", "FROM", "WITH", "VALUES", "TABLE", "PIVOT", "UNPIVOT"}
SELECTS |= {"DESCRIBE", "DESC", "SHOW", "SUMMARIZE"}

# Types returned as Python numbers; DuckDB converts other types to text, nested ones to JSON.
NUMBERS = frozenset(
    f"{unsigned}{size}INT" for unsigned in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
) | {"INTEGER", "UINTEGER", "FLOAT", "DOUBLE"}
NESTED = ("list", "array", "struct", "map", "union")


@dataclass(frozen=True)
class Answer:
    """The result of a query.

    Attributes:
        columns: column names; they need not be unique.
        rows: JSON-compatible values, except that floats may be non-finite; times are texts in UTC.
        left_out: an error message for each record or event log that is missing from the tables
            because it cannot be read.
    """

    columns: list[str]
    rows: list[tuple[Any, ...]]
    left_out: list[str]


def query(sql: str, collected: Collected) -> Answer:
    """Run one SELECT on the tables of some runs.

    Args:
        sql: a SELECT on the tables `runs`, `events` and `cells`; see `TABLES`.
        collected: the runs; unfinished ones are in no table.

    Raises:
        ConfigError: if `sql` is not a single SELECT, or DuckDB rejects it.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config=CLOSED)
    try:
        sql = _encodable(sql)
        left_out = _fill(connection, sql.lower(), collected)
        for setting in LOCKED:
            connection.execute(setting)
        return Answer(*_select(connection, sql), left_out)
    except duckdb.Error as error:
        raise ConfigError(f"SQL: {_line(error)}") from error
    finally:
        connection.close()


def _fill(connection: "duckdb.DuckDBPyConnection", named: str, collected: Collected) -> list[str]:
    left_out: list[str] = []
    records: list[Record] = []
    runs: list[str] = []
    for record in collected.records:
        try:
            runs.append(_json(_run(record, collected.folders[record.run_id])))
        except RecursionError:
            left_out.append(plain(f"{collected.folders[record.run_id]}: nested too deeply"))
        else:
            records.append(record)
    _insert(connection, "runs", runs)
    # Cells and events take longer to build: only if the query names them.
    lines = long_form(aggregate(uncompressed(records))) if "cells" in named else ()
    _insert(connection, "cells", [_json(vars(line)) for line in lines])
    logs: list[str] = []
    for record in records if "events" in named else ():
        try:
            logs.append(_json(_events(record, collected.folders[record.run_id])))
        except RecordError as error:
            left_out.append(plain(str(error)))
    _insert(connection, "events", logs, each=EVENT)
    return left_out


def _insert(
    connection: "duckdb.DuckDBPyConnection",
    table: str,
    objects: list[str],
    each: Iterable[str] = (),
) -> None:
    """Create a table from JSON objects; unnest the columns in `each`, whose values are lists."""
    columns: dict[str, Any] = dict(TABLES[table])
    structure = columns | {name: [columns[name]] for name in each}
    chosen = ", ".join(f"unnest(o.{n}) AS {n}" if n in each else f"o.{n}" for n in columns)
    # A value of the wrong type, such as text in a number column, becomes NULL.
    connection.execute(
        f"CREATE TABLE {table} AS SELECT {chosen} FROM"
        " (SELECT from_json(text, $structure) AS o"
        " FROM (SELECT unnest($objects::VARCHAR[]) AS text))",
        {"structure": json.dumps(structure), "objects": objects},
    )


def _run(record: Record, folder: Path) -> dict[str, Any]:
    facts = record.to_json()
    score = facts["score"] or {}
    # `measured` comes first, so that no key of a foreign record overrides a field of the record.
    return {
        **facts["measured"],
        **facts,
        **score,
        "score": score.get("value"),
        "solved": record.notes.get("solved"),
        "folder": str(folder),
    }


def _events(record: Record, folder: Path) -> dict[str, Any]:
    """Return the events of a run, one list per column; the lists are empty without a log.

    Raises:
        RecordError: if the log cannot be read.
    """
    path = folder / "events.jsonl"
    rows = [
        (event.get("step"), event.get("split"), metric, value)
        for event in (read_events(path) if path.is_file() else ())
        for metric, value in event.items()
        if metric not in ("step", "split")
        and (value is None or type(value) is int or (type(value) is float and math.isfinite(value)))
    ]
    lists = {name: [row[i] for row in rows] for i, name in enumerate(EVENT)}
    return {key: getattr(record, key) for key in SHARED} | lists


def _json(value: dict[str, Any]) -> str:
    return _encodable(json.dumps(value, ensure_ascii=False))


def _encodable(text: str) -> str:
    # Lone surrogates are valid in Python strings but not in UTF-8.
    return text.encode("utf-8", "replace").decode("utf-8")


def _select(
    connection: "duckdb.DuckDBPyConnection", sql: str
) -> tuple[list[str], list[tuple[Any, ...]]]:
    *types_of_pivot, select = _statements(connection, sql)
    for statement in types_of_pivot:
        connection.execute(statement)
    relation = connection.sql(select)
    types = relation.types
    casts = [_cast(i, kind) for i, kind in enumerate(types, start=1)]
    rows = relation.project(", ".join(casts)).fetchall()
    nested = [_is_json(kind) for kind in types]
    if any(nested):
        rows = [tuple(map(_decoded, row, nested)) for row in rows]
    return relation.columns, rows


def _statements(connection: "duckdb.DuckDBPyConnection", sql: str) -> list["duckdb.Statement"]:
    """Parse `sql` into one SELECT, preceded by the CREATE TYPEs that DuckDB 1.x makes of a PIVOT.

    Raises:
        ConfigError: if `sql` is another statement, or more than one.
    """
    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type.name for statement in statements]
    except ValueError:  # a statement type that DuckDB's Python API lacks
        statements, kinds = [], ["this"]
    # DuckDB 1.x parses some PRAGMAs as SELECT: check the first word, too. In 2.x, PIVOT is MULTI.
    word = _first_word(sql)
    *before, last = kinds or [""]
    if word in SELECTS and last in ("SELECT", "MULTI") and set(before) <= {"CREATE"}:
        return statements
    got = word if kinds == ["SELECT"] else " and ".join(kinds) or "nothing"
    raise ConfigError(f"SQL: only one SELECT is allowed, got {got}: runs are read, never changed")


def _first_word(sql: str) -> str:
    import duckdb

    words = (duckdb.token_type.keyword, duckdb.token_type.identifier)
    begins = (begin for begin, kind in duckdb.tokenize(sql) if kind in words)
    text = sql.encode()[next(begins, None) :].decode(errors="replace")  # offsets are in bytes
    return "".join(takewhile(str.isalpha, text)).upper()


def _cast(i: int, kind: Any) -> str:
    """Return the SQL for column `i` (from 1); types without a JSON counterpart become text."""
    if str(kind) in NUMBERS | {"BOOLEAN", "VARCHAR"}:
        return f"#{i}"
    if str(kind).startswith("DECIMAL"):
        return f"#{i}::DOUBLE"
    return f"to_json(#{i})::VARCHAR" if _is_json(kind) else f"#{i}::VARCHAR"


def _is_json(kind: Any) -> bool:
    return str(kind) == "JSON" or kind.id in NESTED


def _decoded(value: Any, nested: bool) -> Any:
    if not nested or value is None:
        return value
    try:
        return json.loads(value, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return value


def _line(error: Exception) -> str:
    """Return DuckDB's message and hint on one line, without error type and source excerpt."""
    text = str(error).partition("\n\n")[0].partition("\nLINE ")[0]
    kind, colon, rest = text.partition(": ")
    return plain(" ".join((rest if colon and kind.endswith("Error") else text).split()))
