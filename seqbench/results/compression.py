"""List compressed runs below the runs that they come from, with their scores and sizes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from seqbench.config.compression import method
from seqbench.runs.record import Record
from seqbench.wording import plain

# Larger numbers in a record are implausible, and are ignored.
LARGEST = 1e18


@dataclass(frozen=True, kw_only=True)
class Line:
    """A run in the list: a parent, or a compressed run below it.

    Attributes:
        run_id: of the run.
        parent: id of the run that it comes from; `None` for a parent.
        task: name of the task; `None` if the parent's record is not among the records.
        length: the task's size.
        model: name of the model; `None` as for `task`.
        method: how it was made smaller; `None` for a parent.
        metric, split, direction, score: see `Score`; `None` without one.
        difference: of the score to the parent's; `None` if they are not of one metric and split.
        parameters: trainable parameters.
        nonzero: those that are not 0; `None` if not counted.
        bytes: size of the file of weights.
        latency: seconds for one example; of a parent, the median over its compressed runs, and of
            these, the parent's times their ratio, since the machine's speed changes over time.
        latency_ratio: to the parent, measured in turns.
    """

    run_id: str
    parent: str | None
    task: str | None
    length: int | None
    model: str | None
    method: str | None
    metric: str | None
    split: str | None
    direction: str | None
    score: float | None
    difference: float | None
    parameters: int | None
    nonzero: int | None
    bytes: int | None
    latency: float | None
    latency_ratio: float | None


def is_compressed(record: Record) -> bool:
    """Return True if a run was made smaller than its parent."""
    return method(record.config) is not None


def uncompressed(records: Iterable[Record]) -> list[Record]:
    """Return the records of runs that are not compressed; tables show only these."""
    return [record for record in records if not is_compressed(record)]


def lines_of(records: Iterable[Record]) -> list[Line]:
    """Return the compressed runs among the records, each group below its parent.

    A compressed run that is a parent itself appears in both places.
    """
    by_id = {record.run_id: record for record in records}
    families: dict[str, list[Record]] = {}
    for record in by_id.values():
        if is_compressed(record):
            families.setdefault(parent_of(record), []).append(record)
    found = []
    for parent, children in families.items():
        first = parent_line(parent, by_id.get(parent), children)
        below = [child_line(child, first) for child in children]
        found += [first, *sorted(below, key=lambda line: by_amount(line.method or ""))]
    return found


def with_sizes(records: Sequence[Record]) -> list[Record]:
    """Return the records, with the size and latency of parents and compressed runs."""
    # Of a run that is both, the line below its own parent is the later one, and is taken.
    known = {line.run_id: line for line in sorted(lines_of(records), key=lambda x: x.parent or "")}
    found = []
    for record in records:
        if (line := known.get(record.run_id)) is not None:
            sizes = {"bytes": line.bytes, "latency": line.latency}
            measured = {name: size for name, size in sizes.items() if size is not None}
            record = replace(record, measured=record.measured | measured)
        found.append(record)
    return found


def parent_of(record: Record) -> str:
    """Return the id of the run that a compressed one comes from, or else the digest of weights."""
    config = record.config
    return str(config.get("init_run") or config.get("init_sha256"))


def parent_line(run_id: str, record: Record | None, children: Sequence[Record]) -> Line:
    """Return the line of a parent; the records of its children have its size and latency."""
    sizes = [size for child in children if (size := fact(child, "parent_bytes")) is not None]
    times = [t for child in children if (t := fact(child, "parent_latency")) is not None]
    own = None if record is None else fact(record, "bytes")
    size = own if own is not None else next(iter(sizes), None)
    return line(
        record,
        run_id=run_id,
        bytes=None if size is None else int(size),
        latency=median(times) if times else None,
        latency_ratio=1.0 if times else None,
    )


def child_line(record: Record, parent: Line) -> Line:
    """Return the line of a compressed run below its parent."""
    score, difference = record.score, None
    is_same = score and (score.metric, score.split) == (parent.metric, parent.split)
    if score and is_same and score.value is not None and parent.score is not None:
        difference = score.value - parent.score
    size = fact(record, "bytes")
    latency, ratio = fact(record, "latency"), fact(record, "latency_ratio")
    if ratio is not None and parent.latency is not None:
        latency = ratio * parent.latency
    return line(
        record,
        run_id=record.run_id,
        parent=parent.run_id,
        method=method(record.config),
        difference=difference,
        bytes=None if size is None else int(size),
        latency=latency,
        latency_ratio=ratio,
    )


def line(record: Record | None, **facts: Any) -> Line:
    """Return a line with facts and what a record says."""
    known: dict[str, Any] = dict.fromkeys(Line.__dataclass_fields__)
    if record is not None:
        nonzero = record.notes.get("nonzero")
        known |= {name: getattr(record, name) for name in ("task", "length", "model", "parameters")}
        known["nonzero"] = nonzero if isinstance(nonzero, int) else None
        if record.score is not None:
            known |= vars(record.score) | {"score": record.score.value}
            del known["value"]
    known |= facts
    known |= {name: plain(value) for name, value in known.items() if isinstance(value, str)}
    return Line(**known)


def fact(record: Record, name: str) -> float | None:
    """Return a measured number; `None` if a foreign record has something else there."""
    value = record.measured.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if 0 <= value < LARGEST else None


def by_amount(text: str) -> str:
    """Return the sort key of a method: numbers in it by their value."""
    return re.sub(r"[\d,.]+", lambda digits: digits[0].replace(",", "").zfill(12), text)
