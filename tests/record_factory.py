"""Make records that look like real ones, for the tests of all that reads records."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from seqbench.runs.record import Record, Score, write_record
from seqbench.runs.source_hash import source_hash

MODELS: dict[str, dict[str, Any]] = {
    "tcn": {"channels": [24] * 8, "kernel_size": 8, "dropout": 0.0, "dropout_kind": "channel"},
    "lstm": {"hidden_size": 130, "num_layers": 1, "forget_bias": 1.0},
    "gru": {"hidden_size": 150, "num_layers": 1},
    "llama": {"dim": 64, "num_layers": 4, "num_heads": 4},
}
PARAMETERS = {"tcn": 70369, "lstm": 70470, "gru": 69500, "llama": 81000}
TASKS: dict[str, dict[str, Any]] = {
    "adding": {
        "metric": "mse",
        "direction": "min",
        "length": 600,
        "baseline": 1 / 6,
        "optimum": 0.0,
    },
    "copy": {
        "metric": "cross_entropy",
        "direction": "min",
        "length": 1000,
        "baseline": 0.020387,
        "optimum": 0.0,
    },
    "smnist": {"metric": "accuracy", "direction": "max", "length": 784, "baseline": 0.1},
    "char_ptb": {"metric": "bpc", "direction": "min", "length": 400, "baseline": 5.6439},
}
# As the recipes have them; 10 where they say nothing.
EPOCHS = {"copy": 50}
STEPS = 5000


def make_config(task: str, model: str, seed: int, **changes: Any) -> dict[str, Any]:
    """Return a composed config; keys of `changes` have double underscores for dots."""
    config: dict[str, Any] = {
        "choices": {"task": task, "model": model},
        "seed": seed,
        "budget": "full",
        "protocol": "ours",
        "task": {"_target_": f"seqbench.tasks.{task}", "data_seed": 0},
        "model": {"_target_": f"seqbench.models.{model}", **MODELS.get(model, {})},
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.004},
        "schedule": {"_target_": "seqbench.training.schedules.Constant", "_partial_": True},
        "trainer": {"steps": None, "batch_size": 32, "clip": 1.0},
        "recipe": {},
    }
    config["trainer"]["epochs"] = EPOCHS.get(task, 10)
    if task in ("adding", "copy"):
        config["task"]["length"] = TASKS[task]["length"]
    for key, value in changes.items():
        node, *path = config, *key.split("__")
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value
    return config


def make_record(
    task: str = "adding",
    model: str = "tcn",
    seed: int = 0,
    value: float | None = 1e-4,
    status: Any = "completed",
    source: str | None = None,
    parameters: int | None = -1,
    **changes: Any,
) -> Record:
    """Return a record; `changes` are applied to its config."""
    facts = TASKS.get(task, TASKS["adding"])
    config = make_config(task, model, seed, **changes)
    metric = facts["metric"]
    scored = status == "completed"
    steps = config["trainer"]["steps"] or STEPS
    length = config["task"].get("length", facts["length"])
    digest = hashlib.sha256(json.dumps([task, length]).encode()).hexdigest()
    return Record(
        run_id=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12],
        status=status,
        task=task,
        model=model,
        seed=seed,
        budget=config["budget"],
        protocol=config["protocol"],
        length=length,
        metrics={"valid": {metric: value}, "test": {metric: value}} if scored else {},
        score=Score(metric=metric, split="test", value=value, direction=facts["direction"])
        if scored
        else None,
        baseline=facts["baseline"],
        optimum=facts.get("optimum"),
        parameters=PARAMETERS.get(model, 1000) if parameters == -1 else parameters,
        steps=steps if scored else 1200,
        tokens=steps * 32 * length,
        data={"test": digest},
        versions={"python": "3.11.2", "seqbench": "0.1.0", "torch": "2.8.0"},
        source=source or source_hash(config),
        config=config,
        defaults={"trainer": {"watch": "valid"}},
        error={"diverged": "the loss at step 1200 is not finite", "failed": "KeyError: 'x'"}.get(
            status
        ),
        notes={"solved": int(value is not None and value < 1e-3)} if metric == "mse" else {},
        measured={
            "seconds": 123.4,
            "throughput": 99000.0,
            "peak_memory_bytes": 400_000_000,
            "device": "cpu (x86_64)",
            "threads": 1,
            "compiled": ["attention_cpu", "llama_cpu"],
            "host": "here",
            "git": "0123456789ab",
            "started": "2026-11-20T10:00:00+00:00",
            "finished": f"2026-11-20T10:{seed % 60:02}:30+00:00",
        },
    )


def write_run(output_dir: Path, record: Record, place: str = "runs") -> Path:
    """Put a record where a run would have written it."""
    folder = output_dir / place / record.task / record.model / record.run_id
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(record.config, sort_keys=False))
    write_record(folder / "record.json", record)
    return folder


def write_unfinished(output_dir: Path, record: Record, events: str) -> Path:
    """Put what a run leaves that has not come to its end."""
    folder = output_dir / "runs" / record.task / record.model / record.run_id
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(record.config, sort_keys=False))
    (folder / "events.jsonl").write_text(events)
    return folder
