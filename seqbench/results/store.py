"""Runs as tables that SQL can ask: `runs`, `events` and `cells`.

Each query gets a database of its own in memory, filled from the files and thrown away, so there is
no index that could be stale. Records are read and checked by `collect`, never by DuckDB: to it they
are data, and before the query runs it can no longer reach a file, the network or an extension.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench.errors import ConfigError
from seqbench.results.aggregate import aggregate
from seqbench.results.collect import Collected, read_events
from seqbench.results.export import long_form
from seqbench.runs.code_hash import source_hash
from seqbench.runs.record import Record, RecordError
from seqbench.wording import plain

if TYPE_CHECKING:
    import duckdb

TABLES: dict[str, dict[str, str]] = {
    "runs": {
        "run_id": "VARCHAR",
        "status": "VARCHAR",
        "task": "VARCHAR",
        "model": "VARCHAR",
        "seed": "BIGINT",
        "budget": "VARCHAR",
        "protocol": "VARCHAR",
        "length": "BIGINT",
        "metric": "VARCHAR",
        "split": "VARCHAR",
        "score": "DOUBLE",
        "direction": "VARCHAR",
        "solved": "BOOLEAN",
        "baseline": "DOUBLE",
        "optimum": "DOUBLE",
        "parameters": "BIGINT",
        "steps": "BIGINT",
        "tokens": "BIGINT",
        "seconds": "DOUBLE",
        "throughput": "DOUBLE",
        "peak_memory_bytes": "BIGINT",
        "device": "VARCHAR",
        "threads": "BIGINT",
        "host": "VARCHAR",
        "git": "VARCHAR",
        "started": "TIMESTAMP",
        "finished": "TIMESTAMP",
        "source": "VARCHAR",
        "error": "VARCHAR",
        "metrics": "JSON",
        "notes": "JSON",
        "config": "JSON",
        "folder": "VARCHAR",
    },
    "events": {
        "run_id": "VARCHAR",
        "task": "VARCHAR",
        "model": "VARCHAR",
        "seed": "BIGINT",
        "step": "BIGINT",
        "split": "VARCHAR",
        "metric": "VARCHAR",
        "value": "DOUBLE",
    },
    "cells": {
        "task": "VARCHAR",
        "length": "BIGINT",
        "budget": "VARCHAR",
        "protocol": "VARCHAR",
        "model": "VARCHAR",
        "variant": "VARCHAR",
        "parameters": "BIGINT",
        "metric": "VARCHAR",
        "split": "VARCHAR",
        "direction": "VARCHAR",
        "n": "BIGINT",
        "mean": "DOUBLE",
        "sd": "DOUBLE",
        "ci95": "DOUBLE",
        "median": "DOUBLE",
        "min": "DOUBLE",
        "max": "DOUBLE",
        "solved": "DOUBLE",
        "baseline": "DOUBLE",
        "optimum": "DOUBLE",
        "failed": "BIGINT",
        "diverged": "BIGINT",
        "older_code": "BIGINT",
        "run_ids": "VARCHAR[]",
    },
}

# Set while the database is made: nothing that follows needs a file.
CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # a table is never a variable of ours
    "temp_directory": "",  # nor does a large sort spill into the current folder
}
# Set before the query runs; DuckDB takes these in a running database only.
LOCKED = (
    "SET TimeZone = 'UTC'",
    "SET disabled_filesystems = 'LocalFileSystem'",
    "SET lock_configuration = true",
    "BEGIN TRANSACTION READ ONLY",  # a SELECT may hold an INSERT
)
# The words that begin what is answered.
SELECTS = {"SELECT", "FROM", "WITH", "VALUES", "TABLE", "PIVOT", "UNPIVOT"}
SELECTS |= {"DESCRIBE", "DESC", "SHOW", "SUMMARIZE"}

# What Python has a type for; DuckDB writes out the others, as it does nested values in JSON.
NUMBERS = frozenset(
    f"{unsigned}{size}INT" for unsigned in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")
) | {"INTEGER", "UINTEGER", "FLOAT", "DOUBLE"}
NESTED = ("list", "array", "struct", "map", "union")


@dataclass(frozen=True)
class Answer:
    """What a query gave.

    Attributes:
        columns: their names; two may be the same.
        rows: values as JSON knows them, though floats need not be finite; times are texts, in UTC.
        left_out: a line for each record or event log that cannot be read and is not in the tables.
    """

    columns: list[str]
    rows: list[tuple[Any, ...]]
    left_out: list[str]


def query(sql: str, collected: Collected) -> Answer:
    """Answer one SELECT on some runs.

    Args:
        sql: on the tables `runs`, `events` and `cells`; see `TABLES`.
        collected: the runs. What has not finished is in no table.

    Raises:
        ConfigError: it is no single SELECT, or DuckDB refuses it.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config=CLOSED)
    try:
        return _answer(connection, _encodable(sql), collected)
    except duckdb.Error as error:
        raise ConfigError(f"SQL: {_line(error)}") from error
    finally:
        connection.close()


def _answer(connection: "duckdb.DuckDBPyConnection", sql: str, collected: Collected) -> Answer:
    left_out = _fill(connection, sql.lower(), collected)
    for setting in LOCKED:
        connection.execute(setting)
    columns, rows = _select(connection, sql)
    return Answer(columns, rows, left_out)


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
    # These take longer, and most queries are about runs.
    lines = long_form(aggregate(records), source_hash()) if "cells" in named else ()
    _insert(connection, "cells", [_json(vars(line)) for line in lines])
    logs: list[str] = []
    for record in records if "events" in named else ():
        try:
            logs.append(_json(_events(record, collected.folders[record.run_id])))
        except RecordError as error:
            left_out.append(plain(str(error)))
    _insert(connection, "events", logs, each=("step", "split", "metric", "value"))
    return left_out


def _insert(
    connection: "duckdb.DuckDBPyConnection",
    table: str,
    objects: list[str],
    each: Iterable[str] = (),
) -> None:
    """Make a table of JSON objects; those columns that are `each` hold a list, to be unnested."""
    columns: dict[str, Any] = dict(TABLES[table])
    structure = columns | {name: [columns[name]] for name in each}
    chosen = ", ".join(f"unnest(o.{n}) AS {n}" if n in each else f"o.{n}" for n in columns)
    # What does not fit its column, as text in place of a number, becomes NULL.
    connection.execute(
        f"CREATE TABLE {table} AS SELECT {chosen} FROM"
        " (SELECT from_json(text, $structure) AS o"
        " FROM (SELECT unnest($objects::VARCHAR[]) AS text))",
        {"structure": json.dumps(structure), "objects": objects},
    )


def _run(record: Record, folder: Path) -> dict[str, Any]:
    facts = record.to_json()
    score = facts["score"] or {}
    # Whatever a foreign record has measured, it does not replace a fact.
    return {
        **facts["measured"],
        **facts,
        **score,
        "score": score.get("value"),
        "solved": record.notes.get("solved"),
        "folder": str(folder),
    }


def _events(record: Record, folder: Path) -> dict[str, Any]:
    """The events of a run, a list for each column; empty where there is no log.

    Raises:
        RecordError: the log cannot be read.
    """
    path = folder / "events.jsonl"
    rows = [
        (event.get("step"), event.get("split"), metric, value)
        for event in (read_events(path) if path.is_file() else ())
        for metric, value in event.items()
        if metric not in ("step", "split")
        and (value is None or type(value) is int or (type(value) is float and math.isfinite(value)))
    ]
    names = ("step", "split", "metric", "value")
    lists = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return {key: getattr(record, key) for key in ("run_id", "task", "model", "seed")} | lists


def _json(value: dict[str, Any]) -> str:
    return _encodable(json.dumps(value, ensure_ascii=False))


def _encodable(text: str) -> str:
    # Half of a surrogate pair is text to Python and to nobody else.
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
    """One SELECT; before it what DuckDB's 1.x make of a PIVOT whose columns are found in the data.

    Raises:
        ConfigError: it is another statement, or more than one.
    """
    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type.name for statement in statements]
    except ValueError:  # a kind that DuckDB's Python does not know
        statements, kinds = [], ["this"]
    # To 1.x a PRAGMA may be a SELECT, so the first word counts, too; to 2.x a PIVOT is MULTI.
    word = _first_word(sql)
    *before, last = kinds or [""]
    if word in SELECTS and last in ("SELECT", "MULTI") and set(before) <= {"CREATE"}:
        return statements
    got = word if kinds == ["SELECT"] else " and ".join(kinds) or "nothing"
    raise ConfigError(f"SQL: one SELECT is answered, not {got}: runs are read, never changed")


def _first_word(sql: str) -> str:
    import duckdb

    words = (duckdb.token_type.keyword, duckdb.token_type.identifier)
    begins = (begin for begin, kind in duckdb.tokenize(sql) if kind in words)
    text = sql.encode()[next(begins, None) :].decode(errors="replace")  # places are in bytes
    return "".join(takewhile(str.isalpha, text)).upper()


def _cast(i: int, kind: Any) -> str:
    """How to ask for column number `i`: DuckDB's values without a like in Python become text."""
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
    """What DuckDB says, with its hint, in one line without its kind of error and its picture."""
    text = str(error).partition("\n\n")[0].partition("\nLINE ")[0]
    kind, colon, rest = text.partition(": ")
    return plain(" ".join((rest if colon and kind.endswith("Error") else text).split()))
