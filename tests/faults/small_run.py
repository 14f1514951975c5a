"""A small run, and ways to end it before its time, for the tests of faults."""

import copy
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from seqbench.config import Config
from seqbench.config.compose import compose
from seqbench.experiment import run
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
# `scripts` is no package.
sys.path.insert(0, str(ROOT / "scripts"))
import kill_storm  # noqa: E402

# Checkpoints at 5, 10, 15 and 20, the best weights at 4, 8, 12, ...
TCN = ["model=tcn", "model.channels=[4,4]", "model.kernel_size=3", "model.dropout=0.2"]
SMALL = [
    *("task=adding", "task.length=12", "task.train_size=32", "task.eval_size=16"),
    *("recipe=none", "threads=1", "device=cpu", "trainer.batch_size=8", "trainer.steps=20"),
    *("trainer.eval_every=4", "trainer.checkpoint_every=5", "trainer.log_every=3"),
]


class Cut(BaseException):
    """A process that ends here and now, as far as the run can tell."""


class CutAt(Observer):
    """Ends a run at the first event from some step on; takes note of the remark it began with."""

    def __init__(self, step: int) -> None:
        self.step = step

    def event(self, event: dict[str, Any]) -> None:
        if event["step"] >= self.step:
            raise Cut


class Listener(Observer):
    """Keeps what a run says when it starts."""

    remark: str | None = None
    step = -1

    def started(self, facts: dict[str, Any]) -> None:
        self.remark, self.step = facts["remark"], facts["step"]


@cache
def composed(*overrides: str) -> Config:
    # Without a model among them, the TCN.
    model = [] if any(word.startswith("model=") for word in overrides) else TCN
    return compose([*model, *SMALL, *overrides])


def small(output_dir: Path, *overrides: str) -> Config:
    """Return the config of a small run."""
    return copy.deepcopy(composed(*overrides)) | {"output_dir": str(output_dir)}


def prepared(config: Config) -> Path:
    """Return the folder of a run that is prepared but not started."""
    with patch.object(Trainer, "fit", side_effect=Cut), pytest.raises(Cut):
        run(config)
    return Run.of(config).folder


def history(config: Config) -> list[tuple[str, int]]:
    """Return the events in the history of a run, with their steps."""
    lines = (Run.of(config).folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [(line["event"], line["step"]) for line in map(json.loads, lines)]


def difference(one: Config, other: Config) -> str | None:
    """Return how two completed runs differ, apart from measurements of the machine."""
    return kill_storm.compare(Run.of(one), Run.of(other))
