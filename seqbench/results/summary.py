"""Summarize a run as texts for lists and pages: its state, score, settings and files."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqbench.config.compression import method
from seqbench.errors import ConfigError
from seqbench.results.collect import Unfinished
from seqbench.results.command import command, elsewhere, resume_command
from seqbench.results.papers import comparability, papers, published
from seqbench.results.recipe import differences
from seqbench.results.variants import leaf, shown
from seqbench.results.where import MISSING, flatten, value_of
from seqbench.runs.evaluations import read_evaluations
from seqbench.runs.identity import DIGESTS, FILES, RUN_ID
from seqbench.runs.record import Record, RecordError, bounds, read_record
from seqbench.runs.run import Run
from seqbench.runs.source_hash import source_hash
from seqbench.wording import amount, count, duration, number, plain, score, task_with_size

MOST_SETTINGS = 4
# Settings that are omitted: other columns show them, or they follow from other settings.
TOLD = ("task.length", *DIGESTS, "task._target_", "model._target_")
# Bytes shown from the end of a log: enough for the traceback.
LOG_TAIL = 6000

# The end of a metric at one step of a forecast's horizon.
STEP = re.compile(r"_step_\d+$")

Section = dict[str, str]

# What is measured in units: its name for the user, a factor and the unit.
UNITS = {
    "bytes": ("size of weights", 1e-3, "kB"),
    "parent_bytes": ("size of parent's weights", 1e-3, "kB"),
    "latency": ("latency", 1e3, "ms"),
    "parent_latency": ("latency of parent", 1e3, "ms"),
    "peak_memory_bytes": ("peak memory", 2**-20, "MiB"),
}


def finished(run: Record | Unfinished) -> str:
    """Return when a run ended or wrote its last event, ISO 8601 in UTC."""
    return str(run.measured.get("finished", "")) if isinstance(run, Record) else run.touched


def columns(run: Record | Unfinished) -> dict[str, str]:
    """Return a run as a row of a list: column -> text."""

    def known(*keys: str) -> object:
        values = (value_of(run, key) for key in keys)
        return next((value for value in values if value not in (MISSING, None)), "-")

    found = run.score if isinstance(run, Record) else None
    return {
        "run": plain(run.run_id)[:8],
        "task": task_with_size(run.task, known("length", "task.length")),
        "model": plain(run.model),
        "seed": plain(str(known("seed"))),
        "budget": plain(str(known("budget"))),
        "status": run.status,
        "score": score(found.metric, found.value) if found else "-",
        "steps": count(run.steps),
        "took": duration(known("measured.seconds")),
        "device": plain(str(known("measured.device"))),
        "settings": changed_settings(run.config),
    }


def changed_settings(config: dict[str, Any]) -> str:
    """Return the settings in which a config differs from its recipe, at most MOST_SETTINGS."""
    texts = {
        key: shown(key, {key: value})
        for key, _, value in differences(config)
        if value is not MISSING and key not in TOLD
    }
    # First: they say most.
    if "init_sha256" in config:
        how = {} if (named := method(config)) is None else {"method": named}
        texts = {"from": str(config.get("init_run", config["init_sha256"]))[:8], **how} | texts
    if "continues" in config:
        texts = {"continues": str(config["continues"])[:8]} | texts
    for name in FILES:
        if texts.pop(f"task.{name}", None):  # a path is long and says least: its file's name, last
            texts[f"task.{name}"] = Path(str(config["task"][name])).name
    listed = [f"{leaf(key)}={text}" for key, text in list(texts.items())[:MOST_SETTINGS]]
    if (more := len(texts) - len(listed)) > 0:
        listed.append(f"+{more} more")
    return plain(", ".join(listed))


def record_sections(record: Record, folder: Path) -> dict[str, Section]:
    """Return everything that is recorded of a run as titled sections: name -> text."""
    status = record.error or record.status
    if not status.startswith(record.status):
        status = f"{record.status}: {status}"
    set_here = settings(record.config)
    retry: Section = {}
    if record.status == "failed":
        with suppress(ConfigError):  # no command line reproduces this config
            retry["to retry"] = f"{command(record.config)}{elsewhere(folder)} --retry"
    return {
        "": {
            "run": record.run_id,
            "status": status,
            **retry,
            **_ancestors(record.config, folder),
            **_start(record.config),
            "task": task_with_size(record.task, record.length),
            "model": f"{record.model}, {count(record.parameters)} parameters",
            "seed": str(record.seed),
            "budget": record.budget or "-",
            "protocol": record.protocol or "-",
        },
        "score": score_rows(record) | _published(record),
        "metrics": metrics(record),
        "scores on other data": evaluations(folder, record.config),
        "training": training_facts(record) | other_measured(record),
        "facts": fact_texts(record.notes),
        "versions": record.versions
        | {"source": record.source + ("" if record.is_current else " (older code)")},
        "data (SHA-256)": record.data,
        "configuration": set_here,
        "not set, at their defaults": {
            key: value for key, value in settings(record.defaults).items() if key not in set_here
        },
    }


def unfinished_sections(run: Unfinished, progress: Section) -> dict[str, Section]:
    """Return what is known of a run without a record as titled sections: name -> text.

    Args:
        run: the run.
        progress: texts of its `step`, `loss` and `valid`; empty if unknown.
    """
    resume = {"to resume": resume_command(run.folder)}
    return {
        "": {
            "run": run.run_id,
            "status": f"{run.status}, last event {run.touched}",
            **(resume if run.status == "unfinished" else {}),
            **_ancestors(run.config, run.folder),
            "task": run.task,
            "model": run.model,
            "last step": progress["step"],
            **{name: progress[name] for name in ("loss", "valid") if progress[name]},
        },
        "configuration": settings(run.config),
    }


def _ancestors(config: dict[str, Any], folder: Path) -> Section:
    """Return the runs that a run continues, its parent first, with the steps of each."""
    lines: dict[str, str] = {}
    while (name := str(config.get("continues"))) not in lines and RUN_ID.fullmatch(name):
        folder, config = folder.parent / name, {}
        lines[name] = f"run {name}, which is not in this folder any more"
        with suppress(RecordError):
            parent = read_record(folder / "record.json")
            config, lines[name] = parent.config, f"run {name} of {count(parent.steps)} steps"
    return {"continues": "\n".join(lines.values())} if lines else {}


def _start(config: dict[str, Any]) -> Section:
    """Return the runs whose weights a run started from, its parent first."""
    lines: dict[str, str] = {}
    while isinstance(source := config.get("init_from"), str) and source not in lines:
        lines[source] = source
        config = {}
        with suppress(RecordError):
            parent = read_record(Run.of_weights(Path(source)).record_path)
            name = f"run {parent.run_id}, {parent.model} on {parent.task}"
            config, lines[source] = parent.config, f"{name}: {source}"
    return {"starts from": "\n".join(map(plain, lines.values()))} if lines else {}


def reached(record: Record) -> str | None:
    """Return the score with its split and direction; `None` without a score."""
    if record.score is None:
        return None
    found = record.score
    better = "lower" if found.direction == "min" else "higher"
    return f"{score(found.metric, found.value)} on {plain(found.split)} ({better} is better)"


def score_rows(record: Record) -> Section:
    """Return the score and its bounds."""
    metric = record.score.metric if record.score else None
    rows = {"reached": text} if (text := reached(record)) else {}
    for name, bound in record.bounds.items():
        rows[plain(name)] = score(metric, bound) if metric else number(bound)
    return rows


def _published(record: Record) -> Section:
    """Return the scores that papers report for this model and task."""
    rows: Section = {}
    for paper in papers():
        if cell := published(paper, record):
            caveats = (f"- {caveat}" for caveat in cell.caveats)
            rows[paper] = "\n".join([cell.text, comparability(record, cell), *caveats])
    return rows


def training_facts(record: Record) -> Section:
    """Return how long a run trained."""
    pace = record.measured.get("throughput")
    return {
        "steps": count(record.steps),
        "time steps read": count(record.tokens),
        "time": duration(record.measured.get("seconds")),
        "time steps/s": number(pace) if isinstance(pace, int | float) else "-",
    }


def other_measured(record: Record) -> Section:
    """Return what else was measured of a run: its device, memory and time."""
    facts: Section = {}
    for key, value in record.measured.items():
        if key in UNITS and isinstance(value, int | float):
            name, factor, unit = UNITS[key]
            facts[name] = f"{number(value * factor)} {unit}"
        elif key not in ("seconds", "throughput"):  # see `training_facts`
            facts |= fact_texts({key: value})
    return facts


def metrics(record: Record) -> Section:
    """Return all metrics of a run as text, accuracies in per cent.

    Those at single steps of a forecast's horizon, `NAME_step_3`, are in the row of `NAME`.
    """
    rows: Section = {}
    for split, values in record.metrics.items():
        steps: dict[str, dict[int, str]] = {}
        for name, value in values.items():
            whole, at, step = name.rpartition("_step_")
            if at and whole in values and step.isdecimal() and len(step) < 10:
                steps.setdefault(f"{split} {whole}", {})[int(step)] = number(value)
            else:
                rows[f"{split} {name}"] = amount(name, value)
        for row, of_steps in steps.items():
            texts = (f"{step}: {text}" for step, text in sorted(of_steps.items()))
            rows[row] += f"; at step {', '.join(texts)}"
    return rows


def evaluations(folder: Path, config: dict[str, Any]) -> Section:
    """Return the scores of a run's weights on other data, the newest of each kind.

    Args:
        folder: the run's folder.
        config: the run's config.
    """
    rows: Section = {}
    for found in read_evaluations(folder / "evaluations.jsonl"):
        digests = " ".join(digest[:8] for digest in found.data.values())
        changed = [
            # Of a file, the name says where it is, the digest what it holds.
            f"{leaf(key)}={Path(str(value)).name} {digests}"
            if key in ("task.path", "input")
            else f"{leaf(key)}={setting_text(value)}"
            for key, value in found.overrides.items()
        ]
        # The metric that ranks models first; those at single steps of a horizon stay in the file.
        names = sorted(found.metrics, key=lambda name: name != found.metric)
        whole = [name for name in names if not STEP.search(name)]
        scores = [score(name, found.metrics[name]) for name in whole]
        limits = bounds(found.baseline, found.naive, found.optimum)
        scores += [f"{name} {score(found.metric, value)}" for name, value in limits.items()]
        if found.unknown:
            scores.append(f"unknown {plain(found.unit)} {count(found.unknown)}")
        age = "" if found.source == source_hash(config) else ", older code"
        facts = f"(step {count(found.step)}, {found.date[:10]}{age})"
        rows[f"{found.split} {', '.join(changed)}"] = f"{', '.join(scores)} {facts}"
    return rows


def settings(config: dict[str, Any]) -> Section:
    """Flatten a config to dotted keys, as the command line takes them, with values as text."""
    # Choices show in the values that they set, and `_partial_` is a detail of Hydra.
    return {
        key: setting_text(value)
        for key, value in flatten(config).items()
        if not key.startswith("choices.") and not key.endswith("._partial_")
    }


def setting_text(value: object) -> str:
    """Format the value of a setting: texts as they are, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def fact_texts(facts: dict[str, Any]) -> Section:
    """Format recorded facts: their names as words, their values as text."""
    return {name.replace("_", " "): fact_text(value) for name, value in facts.items()}


def fact_text(value: object) -> str:
    """Format a recorded fact: a list, a number or anything else; `-` for `None`."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(fact_text, value)) or "none"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    return setting_text(value)


def log_end(path: Path) -> str:
    """Return the last lines of a run's log; an empty text if it cannot be read.

    Symbolic links are not followed: an untrusted run folder could link to a private file of the
    user, which a report would then show to others.
    """
    if path.is_symlink() or not path.is_file():
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.splitlines()
    # The first line is incomplete if the log is longer than the tail.
    return "\n".join(plain(line) for line in (lines[1:] if size > LOG_TAIL else lines))
