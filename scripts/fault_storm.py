"""What can go wrong with a run, done to it on purpose, again and again: is it ever lost?

    python scripts/fault_storm.py --times 20

Each fault strikes so many runs at random steps, over the models and tasks of `kill_storm.py` in
turn. It must end the run, or the attempt to go on with it, as the README promises; what was written
before must stay readable; and when the fault is mended the run must go on from the newest whole
checkpoint, and end with the bits of one that nothing happened to. Prints a table; exit code 0:
nothing was lost, 1: something was. Full and read-only disks need root, who may mount them.
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

# Of `SETTINGS`: the last step, and the one after which two checkpoints are there.
STEPS, TWO_CHECKPOINTS = 45, 11
PAGE = 4096
WITHOUT_ROOT = os.geteuid() != 0


class Cut(BaseException):
    """A process that ends here and now, as far as the run can tell."""


class At(Observer):
    """Does something at the first event from some step on."""

    def __init__(self, step: int, do: Callable[[], None]) -> None:
        self.step, self.do = step, do

    def event(self, event: dict[str, Any]) -> None:
        if event["step"] >= self.step:
            self.step = STEPS + 1
            self.do()


@dataclass
class Trial:
    """A run that something will happen to.

    Attributes:
        config: its configuration.
        calm: the same run in another output folder, where nothing happened to it.
        dice: chooses where and when.
    """

    config: Config
    calm: Run
    dice: random.Random

    @property
    def folder(self) -> Run:
        """The run on disk."""
        return Run.of(self.config)

    def step(self, first: int = 1) -> int:
        """A random step; the event that follows it within four steps is not yet of the last one."""
        return self.dice.randint(first, STEPS - 5)

    def cut_off(self, first: int = 1) -> None:
        """Train to a random step, and no further."""

        def cut() -> None:
            raise Cut

        try:
            run(self.config, At(self.step(first), cut))
        except Cut:
            return
        raise Lost("the run was not cut off")


@contextmanager
def fails(says: str, code: int = 1) -> Iterator[None]:
    """See to it that what is done here ends in one line that says so, and with this exit code."""
    try:
        yield
    except SeqbenchError as error:
        if says not in str(error) or "\n" in str(error) or error.exit_code != code:
            raise Lost(f"exit code {error.exit_code}, '{error}'") from error
    else:
        raise Lost(f"nothing said '{says}'")


# Files that a crash or a disk spoilt


def torn_checkpoint(trial: Trial) -> None:
    """The last checkpoint ends somewhere in its middle."""
    spoil(trial, lambda whole: whole[: trial.dice.randrange(len(whole))])


def rotten_checkpoint(trial: Trial) -> None:
    """One bit of the last checkpoint has changed."""

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
    """The last line of the events was not written to its end."""
    trial.cut_off()
    tear(trial.folder.events_path, trial.dice)
    if last_step(trial.folder.events_path) != read_events(trial.folder.events_path)[-1]["step"]:
        raise Lost("the torn line was read")


def torn_history(trial: Trial) -> None:
    """The last line of the history was not written to its end."""
    trial.cut_off()
    tear(trial.folder.folder / "history.jsonl", trial.dice)


def tear(path: Path, dice: random.Random) -> None:
    whole = path.read_bytes()
    line = whole.splitlines()[-1]
    path.write_bytes(whole + line[: dice.randrange(1, len(line))])


# Disks


def full_disk(trial: Trial) -> None:
    """There is no room for all that the run writes."""
    written = sum(path.stat().st_blocks * 512 for path in trial.calm.folder.rglob("*"))
    disk = mounted(trial)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free - PAGE * trial.dice.randrange(written // PAGE)))
    with fails("No space left on device"):
        run(trial.config)
    ballast.unlink()


def read_only_folder(trial: Trial) -> None:
    """The disk has become one that cannot be written."""
    disk = mounted(trial)
    trial.cut_off()
    remount(disk, "ro")
    with fails("Read-only file system"):
        run(trial.config)
    remount(disk, "rw")


def mounted(trial: Trial) -> Path:
    """The output folder as a small disk of its own."""
    disk = Path(trial.config["output_dir"])
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    return disk


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def quota(trial: Trial) -> None:
    """No file may become as large as the largest that the run writes."""
    largest = max(path.stat().st_size for path in trial.calm.checkpoints.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (trial.dice.randrange(largest), hard))
    try:
        with fails("File too large"):
            run(trial.config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def vanished_folder(trial: Trial) -> None:
    """Somebody removes the run's folder, or its checkpoints, while it trains."""
    victim = trial.dice.choice([trial.folder.folder, trial.folder.checkpoints])
    with fails("No such file or directory"):
        run(trial.config, At(trial.step(), lambda: shutil.rmtree(victim)))


# Processes


def two_processes(trial: Trial) -> None:
    """Another process trains the run already; it goes on undisturbed."""
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
        raise Lost("the second process has written")
    os.write(go, b"!")
    for end in (ready, told, waiting, go):
        os.close(end)
    if code := ended(pid):
        raise Lost(f"the first process ended with {code}")


def holder_died(trial: Trial) -> None:
    """The process that trained the run was killed, and could not let go of it."""
    if ended(forked(trial, lambda: os.kill(os.getpid(), signal.SIGKILL))) != -signal.SIGKILL:
        raise Lost("the holder was not killed")
    if not (trial.folder.folder / ".lease").exists():
        raise Lost("it had let go")


def lease_of_another_host(trial: Trial) -> None:
    """A process on another machine holds the run, and is then not heard of any more."""
    trial.cut_off()
    lease = trial.folder.folder / ".lease"
    lease.write_text("process 42 on elsewhere")
    before = content(trial.folder)
    with fails("is being trained by process 42 on elsewhere"):
        run(trial.config)
    if content(trial.folder) != before:
        raise Lost("the second process has written")
    silent = lease.stat().st_mtime - lock.LEASE
    os.utime(lease, (silent, silent))


def forked(trial: Trial, do: Callable[[], None]) -> int:
    """Train in a process of its own, which does something at a random step; its number."""
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
    """The process is asked to end."""
    stopped_by(trial, signal.SIGTERM)


def sigint(trial: Trial) -> None:
    """Somebody presses Ctrl-C."""
    stopped_by(trial, signal.SIGINT)


def stopped_by(trial: Trial, number: signal.Signals) -> None:
    stop = At(trial.step(), lambda: os.kill(os.getpid(), number))
    with fails("a checkpoint was written", code=130):
        run(trial.config, stop)
    if newest(trial.folder) < (last_step(trial.folder.events_path) or 0):
        raise Lost("there is no checkpoint of the step at which it stopped")


# Numbers


def nan_in_loss(trial: Trial) -> None:
    """The loss of one step is NaN or infinite."""
    number = trial.dice.choice([math.nan, math.inf, -math.inf])

    def poison(backward: Callable[..., Any], model: Any, task: Any, *rest: Any) -> Any:
        loss = task.loss
        with patch.object(task, "loss", lambda *given: loss(*given) * number):
            return backward(model, task, *rest)

    diverges(trial, poison)


def nan_in_gradients(trial: Trial) -> None:
    """The gradient of one parameter at one step is NaN or infinite."""
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
        raise Lost(f"it ended as {record.status}: {error}")
    for path in folder.checkpoints.iterdir():
        tensors, facts = checkpoint.load(path)
        if not all(t.isfinite().all() for name, t in tensors.items() if name.startswith("model.")):
            raise Lost(f"{path.name} is not good any more")
        if path.name == checkpoint.BEST and f"of step {facts['step']}, are kept" not in error:
            raise Lost(f"the best weights are not named: {error}")
    text = folder.record_path.read_text() + folder.events_path.read_text()
    if "NaN" in text or "Infinity" in text:
        raise Lost("what was written holds a number that is none")


def out_of_memory(trial: Trial) -> None:
    """A batch does not fit into the device's memory."""

    def poison(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")

    says = "out of memory on cpu: at trainer.batch_size=8 try trainer.accumulate="
    with fails(says), at_some_step(trial, poison):
        record = run(trial.config)
        raise RunError(record.error)


@contextmanager
def at_some_step(trial: Trial, instead: Callable[..., Any]) -> Iterator[None]:
    """At one random step something else is done in the place of a backward pass."""
    backward, step, calls = Trainer.backward, trial.step(), itertools.count(1)

    def replaced(trainer: Trainer, *given: Any) -> Any:
        if next(calls) != step:
            return backward(trainer, *given)
        return instead(lambda *rest: backward(trainer, *rest), *given)

    with patch.object(Trainer, "backward", replaced):
        yield


FAULTS = {
    "torn last checkpoint": torn_checkpoint,
    "rotten bit in a checkpoint": rotten_checkpoint,
    "torn event line": torn_event,
    "torn history line": torn_history,
    "full disk": full_disk,
    "read-only folder": read_only_folder,
    "limit on file size (quota)": quota,
    "vanished folder": vanished_folder,
    "two processes on one run": two_processes,
    "holder killed": holder_died,
    "lease of another host": lease_of_another_host,
    "SIGTERM": sigterm,
    "SIGINT": sigint,
    "NaN or inf in the loss": nan_in_loss,
    "NaN or inf in gradients": nan_in_gradients,
    "out of memory": out_of_memory,
}
NEED_ROOT = (full_disk, read_only_folder)


def main() -> int:
    """Let every fault strike, print a table, and give the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="how often each fault strikes")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other steps")
    arguments = parser.parse_args()
    # A script's background job ignores SIGINT.
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
                print(f"{name:<28} not tried: only root may mount a disk")
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
    """Let a fault strike a run, mend it, and let the run come to its end; whether it was lost."""
    words = [f"model={model}", f"task={task}", *MODELS[model], *TASKS[task], *SETTINGS]
    calm = compose([*words, f"output_dir={folder / 'calm'}"])
    run(calm)  # once for each pair
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
    """Let a run come to its end, once nothing stands in its way any more.

    Raises:
        Lost: it did not go on from the newest whole checkpoint, or is not what it should be.
    """
    folder = trial.folder
    record = folder.record
    if folder.events_path.exists():
        read_events(folder.events_path)
    step = newest(folder) if record is None else 0
    record = run(trial.config, retry=True)
    if record.status != "completed":
        raise Lost(f"it ended as {record.status}: {record.error}")
    if (began := last_start(folder)) != (expected := ("resumed" if step else "started", step)):
        raise Lost(f"it {began} where it should have {expected}")
    if difference := compare(trial.calm, folder):
        raise Lost(difference)


def newest(folder: Run) -> int:
    """The step of the newest whole checkpoint; 0: there is none."""
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        try:
            return int(checkpoint.load(folder.checkpoints / name)[1]["progress"]["step"])
        except RunError:
            continue
    return 0


def last_start(folder: Run) -> tuple[str, int]:
    """How and at which step a run began or went on for the last time."""
    lines = (folder.folder / "history.jsonl").read_bytes().splitlines()
    starts = [json.loads(line) for line in lines if line.endswith(b"}")]
    return [(e["event"], e["step"]) for e in starts if e["event"] in ("started", "resumed")][-1]


if __name__ == "__main__":
    sys.exit(main())
