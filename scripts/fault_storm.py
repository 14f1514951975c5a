"""Inject faults into runs, and check that no run is lost.

    python scripts/fault_storm.py --times 20

Each fault is injected into `--times` runs at random steps. The runs cycle through the models and
tasks of `kill_storm.py`. A run is lost unless

- the fault, or the attempt to resume after it, ends as the README documents,
- the files written before the fault stay readable,
- the run resumes from the newest valid checkpoint once the fault is removed, and
- its result is bitwise equal to that of a run without a fault.

Prints a table. The exit code is 0 if no run was lost, otherwise 1. The faults "full disk" and
"read-only folder" mount a disk, which requires root.
"""

import argparse
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from kill_storm import MODELS, SETTINGS, STRIDE, TASKS, Lost, compare, ended

from seqbench.config import Config
from seqbench.config.compose import compose
from seqbench.errors import RunError, SeqbenchError
from seqbench.experiment import run
from seqbench.runs import lock
from seqbench.runs.events import last_step, read_events
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training import checkpoint
from seqbench.training.trainer import Trainer

# With `SETTINGS`: the last step, and a step by which two checkpoints have been written.
STEPS, TWO_CHECKPOINTS = 45, 11
PAGE = 4096
WITHOUT_ROOT = os.geteuid() != 0


class Cut(BaseException):
    """Raised inside a run to end it without cleanup, like a crash of its process."""


class At(Observer):
    """Observer that calls `do` once, at the first event of step `step` or later."""

    def __init__(self, step: int, do: Callable[[], None]) -> None:
        self.step, self.do = step, do

    def event(self, event: dict[str, Any]) -> None:
        if event["step"] >= self.step:
            self.step = STEPS + 1
            self.do()


@dataclass
class Trial:
    """A run into which a fault is injected.

    Attributes:
        config: config of the run.
        calm: the same run in another output folder, without a fault.
        dice: random number generator for the step and the details of the fault.
    """

    config: Config
    calm: Run
    dice: random.Random

    @property
    def folder(self) -> Run:
        """Return the run on disk."""
        return Run.of(self.config)

    def step(self, first: int = 1) -> int:
        """Return a random step. An event follows within four steps, before the last step."""
        return self.dice.randint(first, STEPS - 5)

    def cut_off(self, first: int = 1) -> None:
        """Train to a random step, and end the run there without cleanup."""

        def cut() -> None:
            raise Cut

        try:
            run(self.config, At(self.step(first), cut))
        except Cut:
            return
        raise Lost("expected the run to end at a random step, got a completed run")


@contextmanager
def fails(says: str, code: int = 1) -> Iterator[None]:
    """Raise Lost unless the context raises a one-line error with this text and exit code."""
    try:
        yield
    except SeqbenchError as error:
        if says not in str(error) or "\n" in str(error) or error.exit_code != code:
            raise Lost(
                f"expected exit code {code} and '{says}', got {error.exit_code} and '{error}'"
            ) from error
    else:
        raise Lost(f"expected the error '{says}', got no error")


# Damaged files


def torn_checkpoint(trial: Trial) -> None:
    """Truncate the last checkpoint at a random byte."""
    spoil(trial, lambda whole: whole[: trial.dice.randrange(len(whole))])


def rotten_checkpoint(trial: Trial) -> None:
    """Flip a random bit of the last checkpoint."""

    def rot(whole: bytes) -> bytes:
        rotten = bytearray(whole)
        rotten[trial.dice.randrange(len(whole))] ^= 1 << trial.dice.randrange(8)
        return bytes(rotten)

    spoil(trial, rot)


def spoil(trial: Trial, change: Callable[[bytes], bytes]) -> None:
    trial.cut_off(TWO_CHECKPOINTS)
    last = trial.folder.checkpoints / checkpoint.LAST
    last.write_bytes(change(last.read_bytes()))
    with fails(str(last)):
        checkpoint.load(last)


def torn_event(trial: Trial) -> None:
    """Append an incomplete line to the event log."""
    trial.cut_off()
    tear(trial.folder.events_path, trial.dice)
    if last_step(trial.folder.events_path) != read_events(trial.folder.events_path)[-1]["step"]:
        raise Lost("expected the incomplete event to be skipped, got its step")


def torn_history(trial: Trial) -> None:
    """Append an incomplete line to the history."""
    trial.cut_off()
    tear(trial.folder.folder / "history.jsonl", trial.dice)


def tear(path: Path, dice: random.Random) -> None:
    whole = path.read_bytes()
    line = whole.splitlines()[-1]
    path.write_bytes(whole + line[: dice.randrange(1, len(line))])


# Disks


def full_disk(trial: Trial) -> None:
    """Leave less free disk space than the run needs."""
    written = sum(path.stat().st_blocks * 512 for path in trial.calm.folder.rglob("*"))
    disk = mounted(trial)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free - PAGE * trial.dice.randrange(written // PAGE)))
    with fails("No space left on device"):
        run(trial.config)
    ballast.unlink()


def read_only_folder(trial: Trial) -> None:
    """Remount the disk of an interrupted run read-only."""
    disk = mounted(trial)
    trial.cut_off()
    remount(disk, "ro")
    with fails("Read-only file system"):
        run(trial.config)
    remount(disk, "rw")


def mounted(trial: Trial) -> Path:
    """Mount a disk of 4 MB as the output folder, and return the folder."""
    disk = Path(trial.config["output_dir"])
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    return disk


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def quota(trial: Trial) -> None:
    """Limit the size of files to less than the largest checkpoint."""
    largest = max(path.stat().st_size for path in trial.calm.checkpoints.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (trial.dice.randrange(largest), hard))
    try:
        with fails("File too large"):
            run(trial.config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def vanished_folder(trial: Trial) -> None:
    """Delete the folder of the run or its checkpoints during training."""
    deleted = trial.dice.choice([trial.folder.folder, trial.folder.checkpoints])
    with fails("No such file or directory"):
        run(trial.config, At(trial.step(), lambda: shutil.rmtree(deleted)))


# Processes


def two_processes(trial: Trial) -> None:
    """Start a second process on a run: it must fail, and the first process must complete."""
    (ready, told), (waiting, go) = os.pipe(), os.pipe()

    def wait() -> None:
        os.write(told, b"!")
        os.read(waiting, 1)

    pid = forked(trial, wait)
    os.read(ready, 1)
    before = content(trial.folder)
    with fails(f"is being trained by process {pid} on {socket.gethostname()}"):
        run(trial.config)
    if content(trial.folder) != before:
        raise Lost("expected the second process to leave the files unchanged, got changed files")
    os.write(go, b"!")
    for end in (ready, told, waiting, go):
        os.close(end)
    if code := ended(pid):
        raise Lost(f"expected exit code 0 of the first process, got {code}")


def holder_died(trial: Trial) -> None:
    """Kill the training process, so that it cannot remove its lease."""
    if ended(forked(trial, lambda: os.kill(os.getpid(), signal.SIGKILL))) != -signal.SIGKILL:
        raise Lost("expected the training process to be killed, got another end")
    if not (trial.folder.folder / ".lease").exists():
        raise Lost("expected the lease of the killed process to remain, got no lease")


def lease_of_another_host(trial: Trial) -> None:
    """Lock the run by the lease of a process on another host, and let the lease expire."""
    trial.cut_off()
    lease = trial.folder.folder / ".lease"
    lease.write_text("process 42 on elsewhere")
    before = content(trial.folder)
    with fails("is being trained by process 42 on elsewhere"):
        run(trial.config)
    if content(trial.folder) != before:
        raise Lost("expected the second process to leave the files unchanged, got changed files")
    expired = lease.stat().st_mtime - lock.LEASE
    os.utime(lease, (expired, expired))


def forked(trial: Trial, do: Callable[[], None]) -> int:
    """Train in a forked process that calls `do` at a random step, and return the process id."""
    observer = At(trial.step(), do)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            run(trial.config, observer)
            code = 0
        finally:
            os._exit(code)
    return pid


def content(folder: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.folder.rglob("*") if path.is_file()}


def sigterm(trial: Trial) -> None:
    """Send SIGTERM to the training process."""
    stopped_by(trial, signal.SIGTERM)


def sigint(trial: Trial) -> None:
    """Send SIGINT to the training process, as Ctrl-C does."""
    stopped_by(trial, signal.SIGINT)


def stopped_by(trial: Trial, number: signal.Signals) -> None:
    stop = At(trial.step(), lambda: os.kill(os.getpid(), number))
    with fails("a checkpoint was written", code=130):
        run(trial.config, stop)
    if newest(trial.folder) < (last_step(trial.folder.events_path) or 0):
        raise Lost("expected a checkpoint of the step at which the run stopped, got an older one")


# Non-finite numbers, and memory


def nan_in_loss(trial: Trial) -> None:
    """Make the loss of one step NaN or infinite."""
    number = trial.dice.choice([math.nan, math.inf, -math.inf])

    def poison(backward: Callable[..., Any], model: Any, task: Any, *rest: Any) -> Any:
        loss = task.loss
        with patch.object(task, "loss", lambda *given: loss(*given) * number):
            return backward(model, task, *rest)

    diverges(trial, poison)


def nan_in_gradients(trial: Trial) -> None:
    """Make the gradient of one parameter at one step NaN or infinite."""
    number = trial.dice.choice([math.nan, math.inf, -math.inf])

    def poison(backward: Callable[..., Any], model: Any, *rest: Any) -> Any:
        result = backward(model, *rest)
        trial.dice.choice(list(model.parameters())).grad.fill_(number)
        return result

    diverges(trial, poison)


def diverges(trial: Trial, poison: Callable[..., Any]) -> None:
    with at_some_step(trial, poison):
        record = run(trial.config)
    folder, error = trial.folder, str(record.error)
    if record.status != "diverged" or f"at step {record.steps};" not in error:
        raise Lost(f"expected status diverged and its step, got {record.status}: {error}")
    for path in folder.checkpoints.iterdir():
        tensors, facts = checkpoint.load(path)
        if not all(t.isfinite().all() for name, t in tensors.items() if name.startswith("model.")):
            raise Lost(f"expected finite weights in {path.name}, got NaN or infinity")
        if path.name == checkpoint.BEST and f"of step {facts['step']}, are kept" not in error:
            raise Lost(f"expected the step of the best weights in the error, got: {error}")
    text = folder.record_path.read_text() + folder.events_path.read_text()
    if "NaN" in text or "Infinity" in text:
        raise Lost("expected finite numbers in the record and the events, got NaN or Infinity")


def out_of_memory(trial: Trial) -> None:
    """Raise an out-of-memory error in one backward pass."""

    def poison(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")

    says = "out of memory on cpu: at trainer.batch_size=8 try trainer.accumulate="
    with fails(says), at_some_step(trial, poison):
        record = run(trial.config)
        raise RunError(record.error)


@contextmanager
def at_some_step(trial: Trial, instead: Callable[..., Any]) -> Iterator[None]:
    """Call `instead` in place of the backward pass at one random step."""
    backward, step, calls = Trainer.backward, trial.step(), itertools.count(1)

    def replaced(trainer: Trainer, *given: Any) -> Any:
        if next(calls) != step:
            return backward(trainer, *given)
        return instead(lambda *rest: backward(trainer, *rest), *given)

    with patch.object(Trainer, "backward", replaced):
        yield


FAULTS = {
    "truncated checkpoint": torn_checkpoint,
    "flipped bit in a checkpoint": rotten_checkpoint,
    "incomplete event line": torn_event,
    "incomplete history line": torn_history,
    "full disk": full_disk,
    "read-only folder": read_only_folder,
    "limit on file size (quota)": quota,
    "deleted folder": vanished_folder,
    "two processes on one run": two_processes,
    "killed process": holder_died,
    "lease of another host": lease_of_another_host,
    "SIGTERM": sigterm,
    "SIGINT": sigint,
    "NaN or inf in the loss": nan_in_loss,
    "NaN or inf in gradients": nan_in_gradients,
    "out of memory": out_of_memory,
}
NEED_ROOT = (full_disk, read_only_folder)


def main() -> int:
    """Inject every fault, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="number of runs per fault")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random steps")
    arguments = parser.parse_args()
    # Restore the default handler: a background job of a shell script ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    started = time.monotonic()
    dice, lost = random.Random(arguments.seed), 0
    pairs = [(model, task) for model in MODELS for task in TASKS]
    turns = (pairs[i * STRIDE % len(pairs)] for i in itertools.count())
    print(f"{'fault':<28} {'tried':>6} {'lost':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, fault) in enumerate(FAULTS.items()):
            if fault in NEED_ROOT and WITHOUT_ROOT:
                print(f"{name:<28} skipped: mounting a disk requires root")
                continue
            left = [
                strike(fault, *next(turns), Path(folder), f"{number}-{i}", dice)
                for i in range(arguments.times)
            ]
            print(f"{name:<28} {len(left):>6} {sum(left):>6}", flush=True)
            lost += sum(left)
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if lost else 0


def strike(
    fault: Callable[[Trial], None],
    model: str,
    task: str,
    folder: Path,
    name: str,
    dice: random.Random,
) -> bool:
    """Inject a fault into a run, then resume the run. Return True if the run was lost."""
    words = [f"model={model}", f"task={task}", *MODELS[model], *TASKS[task], *SETTINGS]
    calm = compose([*words, f"output_dir={folder / 'calm'}"])
    run(calm)  # trains on the first call for a model and task, later calls return the record
    disk = folder / name
    trial = Trial(calm | {"output_dir": str(disk)}, Run.of(calm), dice)
    try:
        fault(trial)
        finish(trial)
    except Exception as error:
        print(f"lost: {fault.__name__}: {' '.join(words)}", file=sys.stderr)
        traceback.print_exception(error)
        return True
    finally:
        if disk.is_mount():
            subprocess.run(["umount", "--lazy", disk], check=True)
    shutil.rmtree(disk)
    return False


def finish(trial: Trial) -> None:
    """Complete a run after its fault has been removed.

    Raises:
        Lost: if the run does not resume from the newest valid checkpoint, or its result differs
            from that of the run without a fault.
    """
    folder = trial.folder
    record = folder.record
    if folder.events_path.exists():
        read_events(folder.events_path)
    step = newest(folder) if record is None else 0
    record = run(trial.config, retry=True)
    if record.status != "completed":
        raise Lost(f"expected status completed, got {record.status}: {record.error}")
    if (began := last_start(folder)) != (expected := ("resumed" if step else "started", step)):
        raise Lost(f"expected the run to have {expected}, got {began}")
    if difference := compare(trial.calm, folder):
        raise Lost(difference)


def newest(folder: Run) -> int:
    """Return the step of the newest valid checkpoint; 0 without one."""
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        try:
            return int(checkpoint.load(folder.checkpoints / name)[1]["progress"]["step"])
        except RunError:
            continue
    return 0


def last_start(folder: Run) -> tuple[str, int]:
    """Return the last start of a run as `started` or `resumed`, and its step."""
    lines = (folder.folder / "history.jsonl").read_bytes().splitlines()
    starts = [json.loads(line) for line in lines if line.endswith(b"}")]
    return [(e["event"], e["step"]) for e in starts if e["event"] in ("started", "resumed")][-1]


if __name__ == "__main__":
    sys.exit(main())
