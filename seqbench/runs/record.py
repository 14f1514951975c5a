"""Define the record of a run, a JSON file that is written once, when the run is over.

Everything outside `measured` is the same, bit for bit, for two equal runs. JSON has no NaN and no
infinity: such a number is written as null and read as `None`, as is a number too large for a float.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from seqbench.errors import RunError, SeqbenchError
from seqbench.runs import atomic, foreign
from seqbench.runs.config_file import MAX_DEPTH
from seqbench.runs.source_hash import source_hash

SCHEMA = 1
# Most bytes; a record that seqbench writes has three thousand.
LARGEST = 2**24
# Most levels of nesting, including those of the config.
MOST_LEVELS = MAX_DEPTH + 10
# Names of the scores that a score is compared with, beside those of naive predictors.
WITHOUT_MEMORY, BEST_POSSIBLE = "without memory", "best possible"

# Whole numbers with more digits may be larger than any float.
MOST_DIGITS = 308


def _int(text: str) -> int | None:
    return int(text) if len(text) <= MOST_DIGITS else None


# A file that seqbench did not write may hold NaN, which strict JSON does not have.
_decode = json.JSONDecoder(parse_constant=lambda name: None, parse_int=_int).decode


class RecordError(SeqbenchError):
    """A record that is malformed or cannot be read; the message names the key or file."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The metric that ranks a run.

    Attributes:
        metric: name of the metric.
        split: the split that it was measured on.
        value: its value; `None` if it was not finite.
        direction: `min` or `max`, whichever is better.
    """

    metric: str
    split: str
    value: float | None
    direction: Literal["min", "max"]


class Measured(TypedDict, total=False):
    """Measured values, which may differ between equal runs.

    `seconds` is the run's share if seeds were trained as one model. `throughput` is in time steps
    per second. `compiled` lists the sources of kernels that ran, whose results differ from
    PyTorch's by rounding. `started` and `finished` are ISO 8601 in UTC. `bytes` is the size of the
    file of weights. Of a compressed run, `latency` is the median time of a forward pass of one
    example in seconds, `latency_ratio` the median of its ratio to that of the parent.
    """

    seconds: float
    throughput: float | None
    peak_memory_bytes: int | None
    device: str
    threads: int
    compiled: list[str]
    cuda_graph: bool
    seeds_together: int
    bytes: int
    parent_bytes: int
    latency: float
    parent_latency: float
    latency_ratio: float
    recipe: str | None
    host: str
    git: str | None
    started: str
    finished: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of a run that is over.

    Attributes:
        schema: version of this format.
        run_id: 12 hex digits that name the config.
        status: how the run ended.
        task: name of the task in the config's choices.
        model: name of the model in the config's choices.
        seed: seed of the initial weights and the order of the training data.
        budget: name of the budget, if one was chosen.
        protocol: name of the protocol, if one was chosen.
        length: the task's size in time steps, T in the papers.
        metrics: split -> metric -> value, accuracies as fractions.
        score: the metric that ranks models; `None` if the run ended before its test.
        baseline: score of a predictor without memory, or the best of `naive`.
        naive: name -> score of a naive predictor; empty for most tasks.
        optimum: the best possible score; `None` if unknown.
        parameters: trainable parameters of the model.
        steps: training steps taken.
        tokens: time steps read in training, over all sequences.
        data: name -> SHA-256 of the data.
        versions: name -> version of the software that computed the result.
        source: hash of the sources of seqbench that compute results.
        code: config node -> SHA-256 of the custom code that it builds; see
            `code_hash.user_code_hash`. Empty in records of earlier versions.
        config: the resolved config.
        defaults: config node -> the options that the config leaves out, at their defaults; they do
            not count for the run's id. Empty in records of earlier versions.
        error: one line that says why the run diverged or failed.
        notes: facts of the task; `solved` is 0 or 1, `baseline_<metric>` the value of a predictor
            without memory in a metric that does not rank models, `continues` how the runs that this
            one continues were configured.
        measured: as `Measured`; keys and values of a foreign record are not checked.
    """

    schema: int = SCHEMA
    run_id: str
    status: Literal["completed", "diverged", "failed"]
    task: str
    model: str
    seed: int
    budget: str | None
    protocol: str | None
    length: int | None
    metrics: dict[str, dict[str, float | None]]
    score: Score | None
    baseline: float | None
    naive: dict[str, float | None] = field(default_factory=dict)
    optimum: float | None
    parameters: int | None
    steps: int | None
    tokens: int | None
    data: dict[str, str]
    versions: dict[str, str]
    source: str
    code: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any]
    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any]

    @property
    def baseline_name(self) -> str:
        """Return the name of the predictor whose score is `baseline`."""
        found = (name for name, score in self.naive.items() if score == self.baseline)
        return next(found, WITHOUT_MEMORY)

    @property
    def is_current(self) -> bool:
        """Return True if the sources in use computed the record."""
        return self.source == source_hash(self.config)

    @property
    def bounds(self) -> dict[str, float]:
        """Return the scores that a score is compared with, by name."""
        return bounds(self.baseline, self.naive, self.optimum)

    def baseline_of(self, metric: str) -> float | None:
        """Return the value of a predictor without memory in a metric; `None` if unknown."""
        if self.score is not None and self.score.metric == metric:
            return self.baseline
        value = self.notes.get(f"baseline_{metric}")
        return value if isinstance(value, float) else None

    def to_json(self) -> dict[str, Any]:
        """Return the record as an object for strict JSON, with sorted inner keys."""
        return {f.name: strict(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, obj: object) -> "Record":
        """Check an object read from JSON, and return it as a record.

        Unknown keys are dropped: a version may add keys without a new schema number, but a change
        of meaning gets a new one.

        Raises:
            RecordError: if it is not a record, or has a newer schema.
        """
        if not isinstance(obj, dict):
            raise RecordError(f"a record is an object, not {_kind(obj)}")
        schema = _whole(obj.get("schema"), "schema")
        if schema > SCHEMA:
            raise RecordError(
                f"schema {schema} is newer than this seqbench reads ({SCHEMA}): upgrade seqbench"
            )
        if schema < 1:
            raise RecordError(f"schema must be 1 or more, not {schema}")
        found: Record = _RECORD(obj, "")
        return found


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically.

    Raises:
        RunError: if the file cannot be written.
    """
    text = json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n"
    try:
        atomic.write(path, text.encode())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def read_record(path: Path) -> Record:
    """Read and check a record.

    Raises:
        RecordError: if the file cannot be read, or is not a record.
    """
    try:
        text = foreign.read(path, LARGEST).decode("utf-8")
        found = _decode(text)
        # Text with few brackets cannot be nested deep: skip the walk through all values.
        if text.count("{") + text.count("[") > MOST_LEVELS and _depth(found) > MOST_LEVELS:
            raise RecordError("nested too deep")
        return Record.from_json(found)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from error
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise RecordError(f"{path}: not JSON") from None


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def strict(value: Any) -> Any:
    """Return a value as strict JSON holds it: inner keys sorted, NaN and infinity as `None`."""
    if isinstance(value, Score):
        value = vars(value)
    if isinstance(value, dict):
        return {str(key): strict(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


# Returns a value read from JSON, with its Python type; the text is its dotted key, for messages.
Check = Callable[[Any, str], Any]


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "text", value)
    return value


def _whole(value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(key, "a whole number", value)
    if not -(2**63) <= value < 2**63:  # int64, as much as readers of tables can hold
        raise RecordError(f"{_shown(key)} is too large a number")
    return value


def _real(value: Any, key: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(key, "a number or null", value)
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        raise RecordError(f"{_shown(key)} is too large a number") from None


def _object(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(key, "an object", value)
    return value


def _check_of(hint: Any) -> Check:
    """Return the check of a field's type hint."""
    known: dict[Any, Check] = {str: _text, int: _whole, float | None: _real}
    kind, inner = get_origin(hint), get_args(hint)
    if hint in known:
        return known[hint]
    if kind is dict:
        return _object if inner[1] is Any else _object_of(_check_of(inner[1]))
    if kind is UnionType:  # `X | None`
        return _optional(_check_of(inner[0]))
    return _one_of(*inner) if kind is Literal else instance_of(hint)


def _object_of(check: Check) -> Check:
    def checked(value: Any, key: str) -> dict[str, Any]:
        return {k: check(v, f"{key}.{k}") for k, v in _object(value, key).items()}

    return checked


def _optional(check: Check) -> Check:
    return lambda value, key: None if value is None else check(value, key)


def _one_of(*choices: str) -> Check:
    def checked(value: Any, key: str) -> str:
        if value not in choices:
            raise RecordError(f"{_shown(key)} must be one of {', '.join(choices)}")
        return str(value)

    return checked


def instance_of(cls: Any) -> Check:
    """Return a check that makes a dataclass of an object; fields with a factory may be missing."""
    hints = get_type_hints(cls)
    checks = {f.name: _check_of(hints[f.name]) for f in fields(cls)}
    required = [f.name for f in fields(cls) if f.default_factory is MISSING]

    def checked(value: Any, key: str) -> Any:
        parts, within = _object(value, key), f"{key}." if key else ""
        if missing := [name for name in required if name not in parts]:
            raise RecordError(f"{within}{missing[0]} is missing")
        found = {n: check(parts[n], within + n) for n, check in checks.items() if n in parts}
        return cls(**found)

    return checked


_RECORD = instance_of(Record)


def bounds(
    baseline: float | None, naive: Mapping[str, float | None], optimum: float | None
) -> dict[str, float]:
    """Return the scores that a score is compared with, by name; arguments as in `Record`."""
    known = {**(naive or {WITHOUT_MEMORY: baseline}), BEST_POSSIBLE: optimum}
    return {name: value for name, value in known.items() if value is not None}


def _wrong(key: str, wanted: str, value: Any) -> RecordError:
    return RecordError(f"{_shown(key)} must be {wanted}, not {_kind(value)}")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    kinds |= {int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), f"a {type(value).__name__}")


def _shown(key: str) -> str:
    return key if key.isprintable() else ascii(key)
