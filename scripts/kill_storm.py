"""Kill training runs at random moments until they are completed, and check that none is lost.

    python scripts/kill_storm.py --kills 120

Every model on every kind of task, dropout on: a run trains undisturbed, and once more in another
output folder, where it is killed (SIGKILL) at random times and before random operations on its
files, stopped by SIGTERM and SIGINT in between, and continued until it is done. Both must end with
the same bits: events, weights, all that a checkpoint holds, and the record but for what is measured
of the machine. Each part must go on from the newest checkpoint, not from zero. Prints a table; exit
code 0: nothing was lost, 1: something was.

Most parts of a run are forked from this process, because starting Python and torch takes longer
than the whole training; some are the installed command.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step imports it: before the forks, it is imported once

from seqbench.config import Config
from seqbench.config.compose import compose
from seqbench.errors import SeqbenchError
from seqbench.experiment import run
from seqbench.runs.run import Run
from seqbench.training import checkpoint

# Each model with an optimizer, a schedule and a way of cutting batches of its own.
MODELS = {
    "tcn": [
        *("model.channels=[12,12,12]", "model.kernel_size=3"),
        *("optimizer=adamw", "schedule=cosine", "schedule.warmup=0.1"),
    ],
    "lstm": [
        *("model.hidden_size=8", "model.num_layers=2"),
        *("schedule=plateau", "schedule.patience=0"),
    ],
    "gru": ["model.hidden_size=8", "optimizer=sgd", "optimizer.momentum=0.9", "trainer.clip=1.0"],
    "rnn": ["model.hidden_size=8", "optimizer=rmsprop", "trainer.accumulate=2"],
    "llama": [
        *("model.dim=8", "model.num_layers=2", "model.num_heads=2", "model.hidden_dim=16"),
        *("model.context=24", "model.carry_state=true"),
        *("trainer.precision=bf16", "trainer.accumulate=2", "trainer.clip=1.0"),
    ],
}
# Examples with one answer, examples with one at every step, and a text in segments.
TASKS = {
    "adding": ["task.length=24", "task.train_size=64", "task.eval_size=32"],
    "copy": ["task.input=tokens", "task.length=8", "task.train_size=64", "task.eval_size=32"],
    "char_markov": [
        *("task.length=16", "task.context=4", "task.train_size=2000", "task.eval_size=400"),
    ],
}
SETTINGS = [
    *("recipe=none", "threads=1", "device=cpu", "model.dropout=0.2", "trainer.batch_size=8"),
    *("trainer.steps=45", "trainer.eval_every=9", "trainer.checkpoint_every=5"),
    "trainer.log_every=4",
]
# Pairs in steps of seven: a few kills already meet all models and all tasks.
STRIDE = 7
# One part of a run in so many is the installed command.
COMMAND_EVERY = 12
# How a part ends: mostly by SIGKILL.
SIGNALS = [signal.SIGKILL] * 6 + [signal.SIGTERM, signal.SIGINT]
# Python's names for what it does to files.
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.utime"}
# About so many there are, each time a file is brought to disk among them.
OPERATIONS_OF_A_RUN = 130


class Lost(Exception):
    """A run did not go on, or did not end, as it should."""


def main() -> int:
    """Kill runs, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs, over all runs together")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other moments")
    arguments = parser.parse_args()
    # A script's background job ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    started = time.monotonic()
    dice, parts = random.Random(arguments.seed), itertools.count()
    pairs = [(model, task) for model in MODELS for task in TASKS]
    quotas = Counter(pairs[i * STRIDE % len(pairs)] for i in range(arguments.kills))
    columns = ("runs", "kills", "stops", "commands", "resumes", "lost")
    print(f"{'model':<6} {'task':<11}", *(f"{name:>8}" for name in columns))
    total: Counter[str] = Counter()
    for (model, task), kills in quotas.items():
        overrides = [f"model={model}", f"task={task}", *MODELS[model], *TASKS[task], *SETTINGS]
        with tempfile.TemporaryDirectory() as folder:
            counts = storm(overrides, Path(folder), kills, dice, parts)
        print(f"{model:<6} {task:<11}", *(f"{counts[name]:>8}" for name in columns), flush=True)
        total += counts
    print(f"{'all':<18}", *(f"{total[name]:>8}" for name in columns))
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if total["lost"] else 0


def storm(
    overrides: list[str], folder: Path, kills: int, dice: random.Random, parts: Iterator[int]
) -> Counter[str]:
    """Train a run undisturbed, and again under so many kills, in as many runs as that takes."""
    counts: Counter[str] = Counter()
    calm = compose([*overrides, f"output_dir={folder / 'calm'}"])
    began = time.monotonic()
    if code := ended(fork(calm)):
        raise SystemExit(f"the undisturbed run of {' '.join(overrides)} ended with {code}")
    seconds = time.monotonic() - began
    while counts["kills"] < kills:
        counts["runs"] += 1
        words = [*overrides, f"output_dir={folder / str(counts['runs'])}"]
        config = compose(words)
        try:
            while Run.of(config).record is None:
                deadly = counts["kills"] < kills
                part(config, words, seconds if deadly else None, counts, dice, parts)
            if difference := compare(Run.of(calm), Run.of(config)):
                raise Lost(difference)
        except (Lost, SeqbenchError) as error:
            counts["lost"] += 1
            print(f"lost: {' '.join(words)}: {error}", file=sys.stderr, flush=True)
            break
    return counts


def part(
    config: Config,
    words: list[str],
    seconds: float | None,
    counts: Counter[str],
    dice: random.Random,
    parts: Iterator[int],
) -> None:
    """Start or continue a run, and end it at a random moment.

    Args:
        config: of the run.
        words: what it was composed of, for the command.
        seconds: that it takes undisturbed; `None`: let it come to its end.
        counts: what happened is added here.
        dice: chooses moment and signal.
        parts: counts the parts of all runs.

    Raises:
        Lost: it did not go on from the newest checkpoint, or ended by itself with an error.
    """
    folder = Run.of(config)
    saved, _ = checkpoint.load_last(folder.checkpoints)
    step = saved[1]["progress"]["step"] if saved else 0
    before = history(folder)

    number = signal.SIGKILL
    if seconds is None:
        code = ended(fork(config))
    elif (turn := next(parts)) % COMMAND_EVERY == 0:
        counts["commands"] += 1
        process = subprocess.Popen(
            [Path(sys.executable).with_name("seqbench"), "train", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(history(folder)) == len(before):
            time.sleep(0.01)
        time.sleep(dice.uniform(0, seconds / 2))
        process.send_signal(number)
        code = process.wait()
    elif turn % 2:
        code = ended(fork(config, dice.randint(1, OPERATIONS_OF_A_RUN)))
    else:
        number = dice.choice(SIGNALS)
        pid = fork(config)
        time.sleep(dice.uniform(0, seconds))
        os.kill(pid, number)
        code = ended(pid)

    # Stopped politely it says so; before it listens, a signal ends it at once.
    if code not in {0, -signal.SIGKILL} and (
        number == signal.SIGKILL or code not in {130, -number}
    ):
        raise Lost(f"a part ended with exit code {code}")
    if code:
        counts["kills" if code == -signal.SIGKILL else "stops"] += 1
    for line in history(folder)[len(before) :][:1]:
        if (line["event"], line["step"]) != ("resumed" if saved else "started", step):
            raise Lost(f"the newest checkpoint was of step {step}, but the run was {line}")
        counts["resumes"] += bool(step)


def fork(config: Config, operation: int | None = None) -> int:
    """Run an experiment in a process of its own; its number.

    Args:
        config: of the run.
        operation: kill the process before so manieth operation on the run's files.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if operation is not None:
            die_before(operation, config["output_dir"])
        run(config)
        code = 0
    except SeqbenchError as error:
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process; its exit code, below 0 if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_before(operation: int, folder: str) -> None:
    """Kill this process before its n-th file operation in a folder, counted from 1."""
    left = operation

    def count(path: object) -> None:
        nonlocal left
        left -= str(path).startswith(folder)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(fd: Any) -> None:
        count(folder)
        fsync(fd)

    fsync, os.fsync = os.fsync, sync
    sys.addaudithook(lambda event, args: count(args[0]) if event in OPERATIONS else None)


def history(folder: Run) -> list[dict[str, Any]]:
    """Return the starts, interruptions and resumptions of a run, each with its step."""
    path = folder.folder / "history.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def compare(one: Run, other: Run) -> str | None:
    """Return how two finished runs differ outside `measured`; `None` for equal runs."""
    if one.events_path.read_bytes() != other.events_path.read_bytes():
        return "events differ"
    records = [json.loads(folder.record_path.read_bytes()) for folder in (one, other)]
    for key in records[0]:
        if key != "measured" and records[0][key] != records[1][key]:
            return f"the records differ in {key}"
    for name in (checkpoint.BEST, checkpoint.LAST):
        (tensors, facts), (others, other_facts) = (
            checkpoint.load(folder.checkpoints / name) for folder in (one, other)
        )
        for said in (facts, other_facts):
            said.get("progress", {}).pop("seconds", None)
        if facts != other_facts or tensors.keys() != others.keys():
            return f"{name} differs in its facts"
        for key, tensor in tensors.items():
            if tensor.dtype != others[key].dtype or not torch.equal(tensor, others[key]):
                return f"{name} differs in {key}"
    kept = {checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS}
    left = {path.name for path in other.checkpoints.iterdir()} - kept
    return f"left behind: {', '.join(sorted(left))}" if left else None


if __name__ == "__main__":
    sys.exit(main())
