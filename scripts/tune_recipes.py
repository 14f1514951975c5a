"""Tune the recipes that no paper gives: GRU, RNN and LLaMA, each with the same number of trials.

    python scripts/tune_recipes.py adding_gru copy_llama ...      (no names: all of them)

For each (task, model) pair twelve of a space of 48 settings: every rate with every start once, each
with a shape and a clip drawn at random, half of them each. Scored by the best validation value of a
run at the size stated in SIZES. Writes
`configs/recipe/<task>_<model>.yaml`, and beside it every trial with its score in
`<task>_<model>.trials.csv`. Trials are ordinary runs: what is done is not done again.

Recipes whose source names six trials are of an earlier draw, at the sizes that they state.
"""

import csv
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from seqbench.config.compose import compose
from seqbench.experiment import run

RECIPES = Path(__file__).parents[1] / "configs" / "recipe"
COSINE = "seqbench.training.schedules.Cosine"

# Size at which trials are scored, much below the full one: what fits an hour on one core.
SIZES: dict[str, list[str]] = {
    "adding": ["task.length=50", "trainer.steps=1500"],
    "copy": ["task.length=30", "trainer.steps=3000"],
    "char_markov": ["task.eval_size=10000", "trainer.batch_size=16", "trainer.steps=150"],
    "char_shakespeare": ["task.eval_size=10000", "trainer.batch_size=16", "trainer.steps=80"],
}
# Two shapes of about the same number of parameters: 70K, 16K, 100K, 0.8M and 3M.
SHAPES: dict[str, dict[str, list[dict[str, Any]]]] = {
    "gru": {
        "adding": [{"num_layers": 1, "hidden_size": 150}, {"num_layers": 2, "hidden_size": 87}],
        "copy": [{"num_layers": 1, "hidden_size": 70}, {"num_layers": 2, "hidden_size": 41}],
        "char_markov": [
            {"num_layers": 1, "hidden_size": 128},
            {"num_layers": 2, "hidden_size": 90},
        ],
        "char_shakespeare": [
            {"num_layers": 1, "hidden_size": 400},
            {"num_layers": 2, "hidden_size": 256},
        ],
        "char_ptb": [
            {"num_layers": 1, "hidden_size": 920, "embedding_dim": 120},
            {"num_layers": 2, "hidden_size": 560, "embedding_dim": 120},
        ],
    },
    "rnn": {
        "adding": [{"num_layers": 1, "hidden_size": 256}, {"num_layers": 2, "hidden_size": 150}],
        "copy": [{"num_layers": 1, "hidden_size": 120}, {"num_layers": 2, "hidden_size": 70}],
        "char_markov": [
            {"num_layers": 1, "hidden_size": 220},
            {"num_layers": 2, "hidden_size": 156},
        ],
        "char_shakespeare": [
            {"num_layers": 1, "hidden_size": 620},
            {"num_layers": 2, "hidden_size": 440},
        ],
        "char_ptb": [
            {"num_layers": 1, "hidden_size": 1650, "embedding_dim": 120},
            {"num_layers": 2, "hidden_size": 980, "embedding_dim": 120},
        ],
    },
    "llama": {
        "adding": [
            {"num_layers": 3, "dim": 48, "hidden_dim": 96, "num_heads": 4},
            {"num_layers": 2, "dim": 56, "hidden_dim": 128, "num_heads": 4},
        ],
        "copy": [
            {"num_layers": 3, "dim": 24, "hidden_dim": 40, "num_heads": 2},
            {"num_layers": 2, "dim": 28, "hidden_dim": 56, "num_heads": 2},
        ],
        "char_markov": [
            {"num_layers": 2, "dim": 64, "hidden_dim": 168, "num_heads": 4},
            {"num_layers": 4, "dim": 48, "hidden_dim": 112, "num_heads": 4},
        ],
        "char_shakespeare": [
            {"num_layers": 4, "dim": 128, "hidden_dim": 344, "num_heads": 4},
            {"num_layers": 6, "dim": 104, "hidden_dim": 280, "num_heads": 4},
        ],
        "char_ptb": [
            {"num_layers": 4, "dim": 248, "hidden_dim": 664, "num_heads": 4},
            {"num_layers": 6, "dim": 200, "hidden_dim": 536, "num_heads": 4},
        ],
    },
}
RATES = {
    "gru": [5e-4, 1e-3, 2e-3, 5e-3],
    "rnn": [1e-4, 3e-4, 1e-3, 3e-3],
    "llama": [3e-4, 1e-3, 2e-3, 4e-3],
}
CLIPS = [0.25, 1.0]
# Tasks that take over the settings found on another one, for want of time or of the data.
TAKEN_OVER = {
    "smnist": "adding",
    "pmnist": "adding",
    "char_file": "char_shakespeare",
    "char_ptb": "char_shakespeare",
    "char_text8": "char_shakespeare",
    "char_enwik8": "char_shakespeare",
}
# Those that take over all but the size, which is the paper's, about 3M parameters.
SIZED_AS = {"char_ptb": "char_ptb", "char_text8": "char_ptb", "char_enwik8": "char_ptb"}
BATCH = {"smnist": 64, "pmnist": 64, "char_markov": 16, "char_shakespeare": 16, "char_file": 16}
EPOCHS = {"copy": 50, "char_text8": 1, "char_enwik8": 1}  # as for the TCN and the LSTM


def starts(model: str, task: str) -> list[dict[str, Any]]:
    """Return the three initializations, the third axis of the search space."""
    length = "${task.length}"
    if model == "gru":
        return [{"forget_bias": None}, {"forget_bias": 1.0}, {"chrono": length}]
    if model == "rnn":
        return [{"optimizer": "Adam"}, {"optimizer": "RMSprop"}, {"warmup": 0.1}]
    return [{"warmup": 0.02}, {"warmup": 0.05}, {"warmup": 0.1}]


def setting(model: str, shape: dict, rate: float, clip: float, start: dict, task: str) -> dict:
    """Return a point of the search space as the nodes of a recipe."""
    start = dict(start)
    schedule = {
        "_target_": COSINE,
        "_partial_": True,
        "warmup": start.pop("warmup", 0.02),
        "final": 0.1,
    }
    kind = start.pop("optimizer", "AdamW" if model == "llama" else "Adam")
    optimizer = {"_target_": f"torch.optim.{kind}", "_partial_": True, "lr": rate}
    if kind == "AdamW":
        optimizer |= {"betas": [0.9, 0.95], "weight_decay": 0.1}
    trainer = {"clip": clip}
    return {
        "recipe": {"optimizer": optimizer, "schedule": schedule},
        "model": shape | start,
        "trainer": trainer,
    }


def trials(model: str, task: str) -> list[dict]:
    """Return the settings to try for a pair: the same points of the search space for each pair."""
    shapes = SHAPES[model].get(task, SHAPES[model]["adding"])
    pairs = list(itertools.product(RATES[model], starts(model, task)))
    random = np.random.RandomState(0)
    halves = [random.permutation([0, 1] * (len(pairs) // 2)) for _ in range(2)]
    return [
        setting(model, shapes[i], rate, CLIPS[j], start, task)
        for (rate, start), i, j in zip(pairs, *halves, strict=True)
    ]


def as_overrides(node: dict, prefix: str = "") -> list[str]:
    """Return the nodes of a setting as overrides."""
    flat = []
    for key, value in node.items():
        name = f"{prefix}{key}".removeprefix("recipe.")
        if isinstance(value, dict):
            flat += as_overrides(value, f"{name}.")
        else:
            flat.append(f"{name}={json.dumps(value).replace(chr(34), '')}")
    return flat


def tune(task: str, model: str) -> None:
    """Run the trials of a pair, and write its recipe."""
    rows, best, best_score = [], None, None
    for trial, nodes in enumerate(trials(model, task)):
        overrides = [
            f"task={task}",
            f"model={model}",
            "recipe=none",
            *as_overrides(nodes),
            *SIZES[task],
            "threads=1",
            "output_dir=outputs/tuning",
        ]
        record = run(compose(overrides))
        baseline = record.baseline or math.inf
        primary = record.score.metric if record.score else "loss"
        value = record.metrics.get("valid", {}).get(primary)
        print(f"{task}_{model} trial {trial}: {value}", overrides[3:], flush=True)
        seconds = round(record.measured["seconds"], 1)
        rows.append(
            [trial, value, record.status, record.parameters, seconds, *[" ".join(overrides[3:-2])]]
        )
        if value is not None and math.isfinite(value):
            direction = -1 if record.score and record.score.direction == "max" else 1
            if best_score is None or direction * value < best_score[0]:
                best_score, best = (direction * value, primary, value), nodes
    if best is None or best_score is None:
        sys.exit(f"no trial of {task}_{model} went well")
    with (RECIPES / f"{task}_{model}.trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["trial", f"valid_{best_score[1]}", "status", "parameters", "seconds", "overrides"]
        )
        writer.writerows(rows)
    source = (
        f"tuned: best of {len(rows)} trials out of 48 settings at "
        f"{' '.join(SIZES[task])}; all of them in {task}_{model}.trials.csv"
    )
    if best_score[0] > 0.98 * baseline:
        source += ". None beats a predictor without memory there: the choice is arbitrary"
    expected = {"split": "valid", "metric": best_score[1], "value": float(f"{best_score[2]:.4g}")}
    write(task, model, best, source, expected | {"at": " ".join(SIZES[task])})
    for other, origin in TAKEN_OVER.items():
        if origin == task:
            source = f"not tuned on this task: the settings of {task}_{model}"
            nodes = best
            if other in SIZED_AS:
                source += " at 3M parameters"
                # The shape at the same place of the list: as deep, or as shallow.
                layers = [shape["num_layers"] for shape in SHAPES[model][task]]
                shape = SHAPES[model][SIZED_AS[other]][layers.index(best["model"]["num_layers"])]
                nodes = best | {"model": best["model"] | shape}
            write(other, model, nodes, source, None)


def write(task: str, model: str, nodes: dict, source: str, expected: dict | None) -> None:
    """Write a recipe."""
    facts = {"source": source} | ({"expected": expected} if expected else {})
    trainer = nodes["trainer"] | {"batch_size": BATCH.get(task, 32)}
    if task in EPOCHS:
        trainer["epochs"] = EPOCHS[task]
    content = {"recipe": facts | nodes["recipe"], "model": nodes["model"], "trainer": trainer}
    text = yaml.safe_dump(content, sort_keys=False, width=100)
    (RECIPES / f"{task}_{model}.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")


if __name__ == "__main__":
    names = sys.argv[1:] or [f"{task}_{model}" for task in SIZES for model in SHAPES]
    for name in names:
        tune(*name.rsplit("_", 1))
