"""Small searches, for the tests of searching."""

import os
import signal
from pathlib import Path
from typing import Any

from small_sweep import SMALL

from seqbench.launch.sweep import Ending, Job, Sweep, View

SEARCH = [
    *(word for word in SMALL if not word.startswith("model")),
    *("model=gru", "model.num_layers=1", "model.hidden_size=4,6", "model.forget_bias=null"),
    *("optimizer=adam", "trainer.clip=1", "optimizer.lr=tag(log,interval(1e-4,1e-1))"),
    *("search=optuna", "search.trials=6", "search.pruner=none", "launch.workers=2"),
]


class CutAfter(View):
    """Send SIGTERM to the search once a number of runs have ended."""

    def __init__(self, runs: int) -> None:
        self.runs = runs

    def ended(self, job: Job, ending: Ending, found: bool) -> None:
        self.runs -= 1
        if not self.runs:
            os.kill(os.getpid(), signal.SIGTERM)


def study_of(done: Sweep, folder: Path) -> Any:
    """Return the Optuna study of a search in an output folder."""
    import optuna

    path = folder / "sweeps" / done.id / "optuna.log"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="search", storage=storage)


def records(folder: Path) -> list[Path]:
    """Return the paths of the records in an output folder."""
    return list(folder.glob("runs/*/*/*/record.json"))
