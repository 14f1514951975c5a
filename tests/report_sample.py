"""Runs that look like real ones, with events and logs, written without training."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

from record_factory import PARAMETERS, make_record, write_run, write_unfinished

from seqbench.config.compose import Composer
from seqbench.runs.identity import run_id, without_environment
from seqbench.runs.record import Record

MODELS = ("tcn", "gru", "lstm", "llama")  # from the quickest learner to the slowest
# First and last value of the metric that ranks models.
ENDS = {
    "adding": (0.3, 2e-4),
    "copy": (2.0, 1e-3),
    "smnist": (0.1, 0.985),
    "char_ptb": (5.0, 1.35),
}
SEEDS = 4
TRACEBACK = """Traceback (most recent call last):
  File "seqbench/experiment.py", line 140, in run
    self.trainer.fit(training, interrupted)
  File "seqbench/training/trainer.py", line 212, in fit
    loss = self.loss(model(batch.inputs), batch)
  File "my_package/attention.py", line 31, in forward
    return self.mix(x).reshape(batch, -1, self.heads)
RuntimeError: shape '[32, -1, 7]' is invalid for input of size 1228800
"""


def write_sample(output_dir: Path) -> list[Record]:
    """Write 72 runs: 4 models on 4 tasks, other settings, failures, and two unfinished runs."""
    composer = Composer()
    records = [
        sample_record(composer, task, model, seed)
        for task in ENDS
        for model in MODELS
        for seed in range(SEEDS)
    ]
    records += [
        sample_record(composer, "copy", "llama", 20 + i, status)
        for i, status in enumerate(["failed", "diverged", "failed"])
    ]
    smaller = ("model.kernel_size=4", "optimizer.lr=0.002")
    records += [
        sample_record(composer, "adding", "tcn", i, "completed", *smaller) for i in (0, 1, 2)
    ]
    unfinished = [sample_record(composer, "smnist", "lstm", seed) for seed in (30, 31)]
    for record in records:
        write_events(write_run(output_dir, record), record)
    for record in unfinished:
        write_events(write_unfinished(output_dir, record, ""), record, until=0.4)
    return records


def sample_record(composer, task, model, seed, status="completed", *overrides):
    """Return a record with a composed config."""
    budget = "quick" if task == "adding" else "full"
    words = [f"task={task}", f"model={model}", f"seed={seed}", f"budget={budget}", *overrides]
    config = composer.compose(words)
    first, last = ENDS[task]
    rank = MODELS.index(model)
    value = last * (1 + 0.4 * rank + 0.02 * seed) if first > last else last - 0.02 * rank
    record = make_record(task, model, seed, value=value, status=status)
    finished = f"2026-11-{20 + rank}T10:{seed:02}:30+00:00"
    return replace(
        record,
        run_id=run_id(config),
        config=without_environment(config),
        budget=budget,
        length=config["task"].get("length", record.length),
        parameters=PARAMETERS[model] - 20000 * bool(overrides),
        error=TRACEBACK.splitlines()[-1] if status == "failed" else record.error,
        measured=record.measured | {"finished": finished},
    )


def write_events(folder: Path, record: Record, until: float = 1.0) -> None:
    """Write 20 evaluations and 100 losses, from chance to the record's score."""
    task, total = record.task, record.config["trainer"]["steps"] or 15000
    dice = random.Random(f"{task} {record.model} {record.seed}")
    first, last = ENDS[task]
    metric = {"adding": "mse", "copy": "cross_entropy", "smnist": "accuracy"}.get(task, "bpc")
    middle = 0.25 + 0.12 * MODELS.index(record.model)
    until = until if record.status == "completed" else 0.5

    def at(share: float) -> float:
        learned = 1 / (1 + math.exp(-14 * (share - middle)))
        noise = math.exp(dice.gauss(0, 0.06))
        if last < first / 30:
            return math.exp(math.log(first) + learned * math.log(last / first)) * noise
        return first + (last - first) * learned * min(1.0, noise)

    lines = []
    for i in range(1, int(100 * until) + 1):
        step = total * i // 100
        loss = abs(at(i / 100)) if first > last else 2.3 - 2.2 * at(i / 100)
        facts = {"loss": loss, "lr": 0.004 * (1 - i / 101), "grad_norm": math.exp(dice.gauss(0, 1))}
        lines.append({"step": step, "split": "train", **facts})
        if i % 5 == 0:
            lines.append({"step": step, "split": "valid", metric: at(i / 100)})
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = "".join(
        f"step {line['step']}/{total}  loss {line.get('loss', 0.0):.3}\n" for line in lines
    )
    (folder / "log.txt").write_text(log + (TRACEBACK if record.status == "failed" else ""))
