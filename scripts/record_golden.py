"""Record the golden traces: what every model's first training steps on every task give.

    python scripts/record_golden.py          all of them
    python scripts/record_golden.py --new    those of new pairs; the others stay as they are

Writes `tests/golden/traces.json`, to which `tests/golden/test_traces.py` holds the code. Public
datasets are read as `seqbench train` reads them.

Recording anew is legitimate only for a change that is meant to alter the computation: another
initialisation, loss, order of the data, arithmetic of a model. Its commit message says why the
numbers moved. A change that claims to alter nothing (a refactoring, a speed-up) leaves the file as
it is; `scripts/compare_revisions.py` holds such a change to the last bit. Recipes, and the sizes in
`configs/model`, play no part here: tuning them is no reason.
"""

import itertools
import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from seqbench.config.compose import compose
from seqbench.datasets.mnist import load_mnist
from seqbench.datasets.spoken_digits import load_spoken_digits
from seqbench.datasets.text import Text, load_text, split
from seqbench.experiment import run
from seqbench.runs.observer import Observer

TRACES = Path(__file__).parents[1] / "tests" / "golden" / "traces.json"
# No dropout: its random numbers are not the same on every kind of processor.
MODELS = {
    "tcn": ["model.channels=[12,12,12,12]", "model.kernel_size=4", "model.output_std=0.01"],
    "lstm": ["model.hidden_size=24", "model.num_layers=2", "model.forget_bias=1.0"],
    "gru": ["model.hidden_size=24", "model.num_layers=1", "model.forget_bias=1.0"],
    "rnn": ["model.hidden_size=24", "model.num_layers=2"],
    "llama": [
        *("model.dim=16", "model.num_layers=2", "model.num_heads=4", "model.num_kv_heads=2"),
        *("model.hidden_dim=32", "model.carry_state=false"),
    ],
    "transformer_xl": [
        *("model.dim=16", "model.num_layers=2", "model.num_heads=4", "model.hidden_dim=32"),
        *("model.memory=24", "model.eval_memory=40"),
    ],
    "tcn_attention": [
        *("model.channels=[16,16]", "model.kernel_size=4", "model.output_std=0.01"),
        "model.num_heads=4",
    ],
    "nlinear": [],
    "dlinear": ["model.kernel_size=5"],
}
FORECASTING = ("forecast_file", "etth1", "etth2")
GENERATED = ("adding", "copy", "char_markov", "char_file", "char_text8", "char_enwik8")
GENERATED += ("forecast_file", "classify_file", "word_file", "sentiment_file")
TASKS = (*GENERATED, "smnist", "pmnist", "char_ptb", "char_shakespeare", "etth1", "etth2")
TASKS += ("ucr", "spoken_digits", "jsb", "nottingham", "musedata", "piano", "word_ptb")
TASKS += ("nsmc", "char_nsmc")
# Sequences of thousands of steps, on which a trace of Transformer-XL takes minutes.
LONG = ("spoken_digits", "nottingham", "musedata", "piano")
PAIRS = [
    (task, model)
    for task, model in itertools.product(TASKS, MODELS)
    if (task in FORECASTING or model not in ("nlinear", "dlinear"))
    and (task not in LONG or model != "transformer_xl")
]
TRAINING = [
    *("budget=smoke", "recipe=none", "seed=0", "threads=1", "device=cpu"),
    *("optimizer=adam", "optimizer.lr=0.002", "schedule=cosine", "schedule.warmup=0.2"),
    *("trainer.steps=20", "trainer.batch_size=8", "trainer.clip=1.0"),
    *("trainer.log_every=1", "trainer.eval_every=20", "task.eval_size=64"),
]
# Read once for all models, since unpacking and checking takes longer than the training.
read_mnist, read_text = cache(load_mnist), cache(load_text)
read_digits = cache(load_spoken_digits)


class Trace(Observer):
    """Keeps the loss of every step, and the primary metric on validation after the last."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.valid = float("nan")

    def started(self, facts: dict[str, Any]) -> None:
        self.metric = facts["primary"].metric

    def event(self, event: dict[str, Any]) -> None:
        if event["split"] == "train":
            self.losses.append(event["loss"])
        else:
            self.valid = event[self.metric]


def trace(task: str, model: str, data_dir: str | None = None) -> dict[str, Any]:
    """Train one model on one task: `{"losses": [one a step], "valid": the primary metric}`.

    Args:
        task: the task of one of `PAIRS`.
        model: its model.
        data_dir: where the datasets lie.
    """
    kept = Trace()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("seqbench.tasks.mnist.load_mnist", read_mnist),
        mock.patch("seqbench.tasks.spoken_digits.load_spoken_digits", read_digits),
        mock.patch("seqbench.tasks.char_lm.load_text", benchmark_text),
        mock.patch("seqbench.tasks.word_lm.load_text", benchmark_text),
    ):
        overrides = [f"task={task}", f"model={model}", *MODELS[model], *TRAINING]
        if task in ("char_file", "word_file"):
            path = Path(folder) / "text.txt"
            path.write_text(words("abcdefghij \n", 30_000), encoding="utf-8")
            overrides.append(f"task.path={path}")
        if task == "forecast_file":
            path = Path(folder) / "series.csv"
            path.write_text(table(300), encoding="utf-8")
            overrides.append(f"task.path={path}")
        if task == "classify_file":
            path = Path(folder) / "sequences.npz"
            np.savez(path, **sequences(100))
            overrides.append(f"task.path={path}")
        if task == "sentiment_file":
            path = Path(folder) / "texts.csv"
            path.write_text(texts(100), encoding="utf-8")
            overrides.append(f"task.path={path}")
        config = compose(overrides)
        config["data_dir"], config["output_dir"] = data_dir, folder
        run(config, kept)
    return {"losses": [*map(rounded, kept.losses)], "valid": rounded(kept.valid)}


def benchmark_text(name: str, data_dir: str | None) -> Text:
    """Return a benchmark text; for text8 and enwik8 (100 MB each), a text of the same alphabet."""
    alphabets = {
        "text8": "abcdefghijklmnopqrstuvwxyz ",
        "enwik8": bytes(range(9, 256)).decode("latin-1"),
    }
    if name not in alphabets:
        return read_text(name, data_dir)
    return Text(*split(words(alphabets[name], 30_000)), checksums={})


def words(alphabet: str, size: int) -> str:
    """Return a text of 40 random words, which a model can learn."""
    random = np.random.RandomState(0)
    chosen = random.choice(list(alphabet), (40, 6))
    return "".join(chosen[random.randint(40, size=size // 6)].ravel())


def table(rows: int) -> str:
    """A table of two hourly series with a daily season."""
    random = np.random.RandomState(0)
    noise = random.randint(-9, 10, (rows, 2))
    times = np.datetime64("2024-01-01T00:00") + np.arange(rows) * np.timedelta64(1, "h")
    lines = [
        f"{time},{abs(i % 24 - 12) + a / 10},{i % 24 + b / 10}\n"
        for i, (time, (a, b)) in enumerate(zip(times, noise, strict=True))
    ]
    return "".join(["time,load,heat\n", *lines])


def sequences(count: int) -> dict[str, Any]:
    """Return waves of three frequencies, of different lengths."""
    random = np.random.RandomState(0)
    y, lengths = np.arange(count) % 3, random.randint(8, 25, count)
    noise = random.randint(-9, 10, (count, 24)) / 10
    return {"x": np.arange(24) % (y[:, None] + 2) + noise, "y": y, "lengths": lengths}


def texts(count: int) -> str:
    """Return a table of texts of different lengths, whose letters depend on their class."""
    text, lengths = words("abcdefghij", 4 * count), np.random.RandomState(0).randint(8, 25, count)
    rows = [f"{text[4 * i :][:length]}{'xyz'[i % 3]},{i % 3}\n" for i, length in enumerate(lengths)]
    return "".join(["text,label\n", *rows])


def rounded(value: float) -> float:
    """Round to seven significant digits."""
    return float(f"{value:.7g}")


def main() -> None:
    """Write the file: a line for each pair, so that a difference shows which moved."""
    known = json.loads(TRACES.read_text(encoding="utf-8")) if "--new" in sys.argv else {}
    lines = []
    for task, model in PAIRS:
        name = f"{task} {model}"
        lines.append(f'  "{name}": {json.dumps(known.get(name) or trace(task, model))}')
    TRACES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
