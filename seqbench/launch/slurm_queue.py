"""Query and change SLURM's queue through its command-line tools."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from seqbench.errors import RunError

# States of a job that has ended; SLURM may still requeue one whose node failed.
OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
# Timeout of a SLURM command, in seconds.
TIMEOUT = 60.0


@dataclass(frozen=True)
class QueueEntry:
    """A job in SLURM's queue.

    Attributes:
        id: job id for SLURM's commands, as in `12_3`.
        state: SLURM's name of the state.
    """

    id: str
    state: str


def in_queue(names: set[str]) -> dict[tuple[str, int], QueueEntry]:
    """Return the jobs of some submissions by submission name and array index.

    Args:
        names: names of the submissions.

    Returns:
        The jobs that SLURM lists; it keeps those that have ended for some minutes.

    Raises:
        RunError: if SLURM does not answer.
    """
    if not names:
        return {}
    command = ["squeue", "--me", "--noheader", "--array", "--states=all"]
    lines = ask_slurm([*command, f"--name={','.join(sorted(names))}", "--format=%j|%K|%i|%T"])
    found = {}
    for line in lines.splitlines():
        name, index, number, state = line.strip().split("|")
        # submitit submits a single job without an array, so it has no index.
        found[name, int(index) if index.isdigit() else 0] = QueueEntry(number, state)
    return found


def scancel(ids: Sequence[str], *options: str) -> bool:
    """Cancel jobs, or send them a signal by `options`; return False if SLURM reports an error."""
    try:
        if ids:
            ask_slurm(["scancel", "--quiet", *options, *ids])
    except RunError:
        return False
    return True


def ask_slurm(command: Sequence[str]) -> str:
    """Run a SLURM command and return its standard output.

    Raises:
        RunError: if it fails, or takes longer than `TIMEOUT`.
    """
    try:
        # A new session: Ctrl-C must reach only the launcher, which then still needs SLURM.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} does not answer: {error}") from error
    if done.returncode:
        raise RunError(f"{command[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def requeue(number: str) -> None:
    """Requeue this job, unless SLURM is already ending it: cancelled, or requeued by SLURM itself.

    Args:
        number: SLURM job id.

    Raises:
        RunError: if SLURM does not answer.
    """
    state = ask_slurm(["squeue", "--noheader", f"--jobs={number}", "--format=%T"]).strip()
    if state not in (*OVER, "COMPLETING", ""):
        ask_slurm(["scontrol", "requeue", number])
