"""Forecast what a sweep would do: the state of each job, and the training that it has left."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqbench.launch.cost import Costs, wall_clock
from seqbench.launch.job import Job
from seqbench.launch.progress import Progress
from seqbench.launch.sweep import Sweep
from seqbench.results.collect import collect
from seqbench.runs import lock


@dataclass(frozen=True)
class Forecast:
    """The next action of a sweep for a job whose run has not ended.

    Attributes:
        state: `held`: another process trains it.
        seconds: estimated training time that is left; `None` if unknown.
        step: step to resume from; 0 for a new run.
    """

    state: Literal["new", "resume", "held"]
    seconds: float | None = None
    step: int = 0


def forecasts(sweep: Sweep) -> dict[Path, Forecast]:
    """Return run folder -> forecast of each job that has not ended, from records of other runs."""
    jobs = {folder: job for folder, job in sweep.jobs.items() if folder not in sweep.endings}
    costs = known_costs({Path(job.config["output_dir"]) for job in jobs.values()})
    return {folder: forecast(job, costs) for folder, job in jobs.items()}


def known_costs(output_dirs: Iterable[Path]) -> Costs:
    """Return the training times of the runs in output folders, and of those kept for reference."""
    places = sorted(folder / name for folder in output_dirs for name in ("runs", "reference"))
    return Costs(collect(places).records)


def forecast(job: Job, costs: Costs) -> Forecast:
    """Return the forecast of one job."""
    if lock.is_held(job.run.folder):
        return Forecast("held")
    seconds = costs.of(job)
    if job.force or job.state() != "resume":
        return Forecast("new", seconds)
    progress = Progress(job.run).look()
    if seconds is not None and progress.total_steps:
        seconds *= max(0.0, 1 - progress.step / progress.total_steps)
    return Forecast("resume", seconds, progress.step)


def time_to_finish(sweep: Sweep, seconds: list[float]) -> tuple[float, int] | None:
    """Return the seconds until jobs of these durations are done, and how many run at a time.

    Returns:
        `None` for launchers other than the local one.

    Raises:
        ConfigError: if the launcher refuses its settings.
    """
    settings = dict(word.partition("=")[::2] for word in sweep.command)
    launcher = settings.get("launch") or settings.get("hydra/launcher") or "local"
    if sweep.engine is None or launcher != "local":
        return None
    places = sweep.engine().room()
    return wall_clock(seconds, places), places
