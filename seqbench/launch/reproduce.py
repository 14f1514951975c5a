"""Plan the runs of a paper's table: which cells, which runs, what is finished, what comes first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from seqbench.config.choices import choices_of
from seqbench.errors import ConfigError
from seqbench.launch.cost import Costs
from seqbench.launch.engine import Engine
from seqbench.launch.job import Ending, Job
from seqbench.launch.plan import known_costs
from seqbench.launch.sweep import Sweep
from seqbench.results.collect import collect
from seqbench.results.targets import Target, targets
from seqbench.runs.identity import IGNORED_KEYS
from seqbench.runs.record import Record
from seqbench.wording import suggestion


def check_place(words: Iterable[str]) -> None:
    """Refuse overrides that could change results: paper and protocol define what is trained.

    Raises:
        ConfigError: if a word does not just set the launcher or where and how a run executes.
    """
    for word in words:
        group, _, name = word.partition("=")[0].lstrip("+").partition(".")
        places = {"launch", "hydra/launcher", *IGNORED_KEYS[""]} - {"recipe"}
        if group not in places and name not in IGNORED_KEYS.get(group, ()):
            raise ConfigError(f"paper and protocol say what is trained: leave out '{word}'")


def measurable(
    paper: str, only: str | None, settings: Mapping[str, str]
) -> tuple[list[Target], int]:
    """Return the cells of a paper's table that a protocol can measure; and how many it cannot.

    Args:
        paper: name of the paper.
        only: filter on the cells; see `targets`.
        settings: the chosen `budget` and `protocol`.

    Raises:
        ConfigError: if a name does not exist, or no cell is left.
    """
    for group, name in settings.items():
        if name not in (known := choices_of(group)):
            raise ConfigError(f"no {group} named '{name}'{suggestion(name, known)}")
    found = targets(paper, choices_of("model"), only)
    if settings["protocol"] != "code":
        return found, 0
    # Released code exists for the pairs that have settings in configs/protocol_for/pair.
    pairs = choices_of("protocol_for/pair")
    released = [t for t in found if f"{t.row.task}_{t.model}_code" in pairs]
    if not released:
        raise ConfigError(
            f"--protocol code leaves nothing to measure: seqbench has no settings of released code "
            f"for {paper}; --protocol ours has"
        )
    return released, len(found) - len(released)


@dataclass
class Reproduction:
    """The missing runs of a paper's table as one sweep.

    Hydra passes it to the launcher in place of a Sweep. Hydra itself makes one job, from the launch
    overrides; it is replaced by one job for each target and seed.

    Attributes:
        sweep: runs the jobs.
        targets: the cells to measure.
        settings: overrides shared by all jobs.
        seeds: number of runs per target.
        jobs: target -> its jobs; filled by `launch`.
        kept: run_id -> record of a completed run in `output_dir/reference`.
    """

    sweep: Sweep
    targets: Sequence[Target]
    settings: Sequence[str]
    seeds: int
    jobs: dict[Target, list[Job]] = field(default_factory=dict)
    kept: dict[str, Record] = field(default_factory=dict)

    def launch(
        self, overrides: Sequence[Sequence[str]], engine: Callable[[], Engine]
    ) -> list[Ending]:
        """Train the missing runs, cheapest first.

        Args:
            overrides: overrides of each job that Hydra made; there must be one job.
            engine: makes the engine that runs jobs.

        Raises:
            ConfigError: if an override has several values.
        """
        if len(overrides) > 1:
            raise ConfigError("reproduce takes one value of each key")
        for target in self.targets:
            words = [*target.row.overrides, f"model={target.model}", *self.settings]
            each = [[*words, f"seed={seed}", *overrides[0]] for seed in range(self.seeds)]
            self.jobs[target] = self.sweep.compose(each)
        run_ids = {job.run.run_id for jobs in self.jobs.values() for job in jobs}
        kept = collect([self.output_dir / "reference"]).records
        kept = [record for record in kept if record.status == "completed"]
        self.kept = {record.run_id: record for record in kept if record.run_id in run_ids}
        self.sweep.run(self.cheapest_first(known_costs([self.output_dir])), engine)
        return [Ending("completed")]  # for Hydra's one job; unused

    @property
    def output_dir(self) -> Path:
        """Return the output folder of the runs; `launch` must have planned them."""
        return Path(next(iter(self.jobs.values()))[0].config["output_dir"])

    def cheapest_first(self, costs: Costs) -> list[Job]:
        """Return the jobs that are not in `kept`, sorted by estimated training time.

        The estimate comes from similar records if there are any, else from the number of
        floating-point operations, at the median rate of the jobs that have similar records.
        """
        due = [
            (job, costs.of(job), operations(job, target))
            for target, jobs in self.jobs.items()
            for job in jobs
            if job.run.run_id not in self.kept
        ]
        speeds = [flops / seconds for _, seconds, flops in due if seconds]
        speed = median(speeds) if speeds else 1.0
        due.sort(key=lambda item: item[2] / speed if item[1] is None else item[1])
        return [job for job, _, _ in due]

    def records(self) -> dict[Target, list[Record]]:
        """Return target -> the records of its runs so far."""
        found = {r.run_id: r for r in collect([self.output_dir / "runs"]).records} | self.kept
        return {
            target: [found[job.run.run_id] for job in jobs if job.run.run_id in found]
            for target, jobs in self.jobs.items()
        }


def operations(job: Job, target: Target) -> float:
    """Estimate the FLOPs of a training run: 6 per parameter and time step."""
    trainer, row = job.config["trainer"], target.row
    if trainer["epochs"] is not None:
        steps = trainer["epochs"] * (row.tokens or 1)
    else:
        length = job.config["task"].get("length", row.length or 1)
        steps = trainer["steps"] * trainer["batch_size"] * length
    return 6.0 * (row.size or 1) * steps
