"""What a sweep asks of the place where its jobs are done: this machine, a cluster."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from seqbench.launch.job import Ending, Job


class Engine(Protocol):
    """Does jobs. It decides nothing: which jobs, in which order and when to stop is the sweep's.

    What an engine says of a job is what it saw; whether a run is over, its record says.
    """

    def room(self) -> int:
        """How many more jobs it takes now."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Take these jobs; at most `room()` of them."""

    def working(self) -> Sequence[Job]:
        """Jobs that it has taken and that have not ended."""

    def ended(self, seconds: float) -> Iterable[tuple[Job, Ending]]:
        """Jobs that ended since it was last asked; waits so long for the first at most."""

    def stop(self, jobs: Sequence[Job], now: bool) -> None:
        """Have these jobs end: with a checkpoint, or at once. They still come out of `ended`."""

    def close(self) -> None:
        """Leave nothing behind: no process, no connection."""
