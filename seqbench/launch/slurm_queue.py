"""SLURM's queue, by its own commands."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from seqbench.errors import RunError

# States of a job that SLURM is done with; it may still think better of one whose node failed.
OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
# Seconds after which SLURM's commands are taken to have failed.
PATIENCE = 60.0


@dataclass(frozen=True)
class Seen:
    """A job in SLURM's queue.

    Attributes:
        id: that commands take, `12_3`.
        state: in SLURM's words.
    """

    id: str
    state: str


def in_queue(names: set[str]) -> dict[tuple[str, int], Seen]:
    """What SLURM knows of some submissions: jobs by name and index.

    Those that are over stay in its list for some minutes.

    Raises:
        RunError: it does not answer.
    """
    if not names:
        return {}
    command = ["squeue", "--me", "--noheader", "--array", "--states=all"]
    lines = ask_slurm([*command, f"--name={','.join(sorted(names))}", "--format=%j|%K|%i|%T"])
    found = {}
    for line in lines.splitlines():
        name, index, number, state = line.strip().split("|")
        # A submission of one job is no array.
        found[name, int(index) if index.isdigit() else 0] = Seen(number, state)
    return found


def scancel(ids: Sequence[str], *options: str) -> None:
    """Cancel jobs or send them a signal; those that are over already are none of our concern."""
    if ids:
        with suppress(RunError):
            ask_slurm(["scancel", "--quiet", *options, *ids])


def ask_slurm(command: Sequence[str]) -> str:
    """What a command of SLURM's prints.

    Raises:
        RunError: it failed, or takes too long.
    """
    try:
        # Ctrl-C is for the launcher, which has something to ask SLURM then.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} does not answer: {error}") from error
    if done.returncode:
        raise RunError(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def requeue(number: str) -> None:
    """Put this job back into the queue, unless SLURM is ending it already.

    Then somebody has cancelled it, or SLURM brings it back itself.
    """
    state = ask_slurm(["squeue", "--noheader", f"--jobs={number}", "--format=%T"]).strip()
    if state not in (*OVER, "COMPLETING", ""):
        ask_slurm(["scontrol", "requeue", number])
