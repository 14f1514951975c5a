"""Small sweeps, and an engine that runs jobs in this process, for the tests of launching."""

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from commands import Command

from seqbench.config.compose import Composer
from seqbench.config.multirun import multirun
from seqbench.launch.job import Ending, Job, train_job
from seqbench.launch.sweep import Policy, Sweep, View
from seqbench.runs.code_hash import user_code_hash

SMALL = [
    *("model=tcn", "model.channels=[4]", "model.kernel_size=3", "model.dropout=0.2"),
    *("task=adding", "task.length=12", "task.train_size=32", "task.eval_size=16"),
    *("recipe=none", "threads=1", "device=cpu", "trainer.batch_size=8", "trainer.steps=20"),
    *("trainer.eval_every=4", "trainer.checkpoint_every=5", "trainer.log_every=3"),
]
# A model that does what it is told once it is trained. "wait" makes each step take long until there
# is a file `hurry`; that changes nothing that is computed.
MISBEHAVING = """
    import os, signal, time
    import torch

    class Misbehaving(torch.nn.Module):
        def __init__(self, spec, deed: str) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 1)
            self.deed = deed

        def forward(self, x):
            if self.deed == "raise":
                raise LookupError("nothing there")
            if self.deed == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.deed == "abort":
                os.abort()
            if self.deed == "leave":
                os._exit(7)
            if self.deed == "memory":
                torch.empty(2**60)
            if self.deed == "wait" and not os.path.exists("hurry"):
                time.sleep(0.1)
            return self.linear(x[:, -1])
"""


def write_misbehaving(folder: Path) -> list[str]:
    """Write the model into the current folder, and return the overrides that use it."""
    # Another test may have had another one.
    sys.modules.pop("misbehaving", None)
    user_code_hash.cache_clear()
    (folder / "misbehaving.py").write_text(textwrap.dedent(MISBEHAVING))
    (folder / "own" / "model").mkdir(parents=True)
    node = "_target_: misbehaving.Misbehaving\ndeed: none\n"
    (folder / "own" / "model" / "misbehaving.yaml").write_text(node)
    return ["model=misbehaving", *(word for word in SMALL if not word.startswith("model"))]


class Seen(View):
    """Record `(label, how, found)` of each job that ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, bool]] = []

    def ended(self, job: Job, ending: Ending, found: bool) -> None:
        self.ends.append((job.label, ending.how, found))

    @property
    def trained(self) -> list[str]:
        """Return the labels of the jobs that this sweep trained."""
        return [label for label, how, found in self.ends if not found and how == "completed"]


class Once(Seen):
    """Call a function as soon as a number of runs have reached a step and are being trained."""

    def __init__(self, deed: Callable[[Sweep], object], step: int = 10, runs: int = 2) -> None:
        super().__init__()
        self.deed: Callable[[Sweep], object] | None = deed
        self.step, self.runs = step, runs

    def look(self, sweep: Sweep) -> None:
        if self.deed and sum(p.step >= self.step for p in sweep.running.values()) >= self.runs:
            deed, self.deed = self.deed, None
            deed(sweep)


def press(times: int) -> Callable[[Sweep], object]:
    """Return a function that presses Ctrl-C."""
    return lambda sweep: [os.kill(os.getpid(), signal.SIGINT) for _ in range(times)]


def sweep(
    words: Sequence[str],
    config_dir: str | None = None,
    policy: Policy | None = None,
    view: View | None = None,
    here: bool = False,
    **attributes: Any,
) -> Sweep:
    """Sweep as the command does, through Hydra, and return the sweep.

    `here`: do the jobs in this process, whatever engine the words name.
    """
    composer = Composer(config_dir)
    asked = Sweep(words, composer, policy or Policy(), view or Seen())
    for name, value in attributes.items():
        setattr(asked, name, value)
    if here:
        asked.launch = lambda jobs, engine: Sweep.launch(asked, jobs, Here)  # type: ignore[method-assign]
    multirun(composer, words, asked)
    return asked


def launcher(words: Sequence[str], folder: Path, **environment: str) -> Command:
    """Start a sweep as a command in a folder with a misbehaving model."""
    said = folder / f"said {len(list(folder.glob('said *')))}"
    said.mkdir()
    typed = ("sweep", "--config-dir", "own", *words)
    return Command(typed, folder, os.environ | environment, said)


class Here:
    """An engine that does jobs in this process, one after another."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def room(self) -> int:
        return 1 - len(self.jobs)

    def start(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs

    def working(self) -> list[Job]:
        return list(self.jobs)

    def ended(self, seconds: float) -> Iterator[tuple[Job, Ending]]:
        if not self.jobs:
            time.sleep(seconds)
        while self.jobs:
            yield self.jobs[0], train_job(self.jobs.pop(0))

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        self.jobs = [job for job in self.jobs if job not in jobs]

    def close(self) -> None:
        self.jobs = []


def kept(folder: Path) -> dict[str, Any]:
    """Return record and events of the runs below a folder, by run id, without measurements."""
    result = {}
    for path in sorted(folder.glob("runs/*/*/*/record.json")):
        record = json.loads(path.read_text())
        del record["measured"]
        result[path.parent.name] = record, (path.parent / "events.jsonl").read_bytes()
    return result


def history(folder: Path) -> list[str]:
    """Return the events in the history of a run: `started`, `interrupted`, ..."""
    return [json.loads(line)["event"] for line in (folder / "history.jsonl").open()]
