"""Define the interface between a sweep and what runs its jobs: this machine or a cluster."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from seqbench.launch.job import Ending, Job


class Engine(Protocol):
    """A backend that runs jobs. The sweep decides which jobs, in which order, and when to stop.

    An engine reports what it observed of a job's process; only its record shows that a run is over.
    """

    def room(self) -> int:
        """Return how many more jobs the engine accepts now."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Start these jobs, at most `room()` of them."""

    def working(self) -> Sequence[Job]:
        """Return the jobs that were started and have not ended."""

    def ended(self, seconds: float) -> Iterable[tuple[Job, Ending]]:
        """Yield the jobs that ended since the last call; wait about `seconds` for the first."""

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        """Stop these jobs with a checkpoint, or at once if `now`; `ended` still yields them."""

    def close(self) -> None:
        """Release all processes and connections."""
