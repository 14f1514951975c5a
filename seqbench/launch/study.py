"""Search the hyperparameters of one model on one task with Optuna, on any launcher.

The sampler proposes a few trials at a time, their runs are launched as those of any sweep, and it
receives their validation scores; the test split is not used. The pruner stops runs that score worse
than others did at the same step. The study is a file in a folder that is named by a hash of what is
searched, so an interrupted search can resume and a finished one can get more trials. Each trial is
an ordinary run, which is not trained twice. If asked for, the best trials are trained with further
seeds, and the best mean is chosen: a single run may score well by chance.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from seqbench.config import Config
from seqbench.errors import ConfigError
from seqbench.launch.job import Job
from seqbench.launch.progress import Progress
from seqbench.launch.search_space import overrides
from seqbench.launch.sweep import Sweep, short_hash
from seqbench.runs import lock
from seqbench.runs.identity import run_id

STUDY, LOG = "search", "optuna.log"
# Runs one job per list of overrides, and returns when all have ended.
Launch = Callable[[Sequence[Sequence[str]]], Any]


@dataclass(frozen=True)
class Settings:
    """The settings of a search.

    Attributes:
        trials: trials of each model on each task in total, including those of earlier calls.
        parallel: trials at a time; the sampler proposes them together.
        sampler: Optuna sampler that proposes hyperparameters.
        pruner: Optuna pruner that stops unpromising trials.
        seed: seed of the sampler.
        space: name of a search space in configs/search_space or in the user's config folder;
            `none`: search only the overrides with several values; `None`: the search space named
            after the model, if there is one.
        repeats: number of further seeds that the best trials are trained with; if there are any,
            the trial with the best mean over its seeds is chosen.
        finalists: number of best trials that are repeated.

    Raises:
        ConfigError: if a number is not positive.
    """

    trials: int
    parallel: int
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "hyperband", "none"]
    seed: int
    space: str | None
    repeats: int
    finalists: int

    def __post_init__(self) -> None:
        if min(self.trials, self.parallel, self.finalists) < 1 or self.repeats < 0:
            raise ConfigError(
                "search.trials, parallel and finalists must be positive, search.repeats 0 or more"
            )


class Study:
    """A search for the best hyperparameters of one model on one task.

    Args:
        settings: settings of the search.
        config: the config that all trials share.
        fixed: the overrides that all trials share.
        dimensions: key -> distribution of each hyperparameter.
        metric: metric of the score.
        direction: of a better score, `min` or `max`.

    Attributes:
        id: names the study; a hash of the config and of what is searched.
        is_over: True once `run` has run all trials and repeats.
        scores: trial number -> seed -> validation score of the trials that are repeated; `None`:
            the run failed. Empty until all repeats are over.
        study: Optuna's study, once `open` was called.
        trials: number of trials; more than in the settings if failed ones are run again.
    """

    def __init__(
        self,
        settings: Settings,
        config: Config,
        fixed: Sequence[str],
        dimensions: dict[str, BaseDistribution],
        metric: str,
        direction: str,
    ) -> None:
        self.settings, self.config, self.fixed = settings, config, fixed
        self.dimensions, self.metric, self.direction = dimensions, metric, direction
        self.id = study_id(run_id(config), dimensions)
        self.is_over = False
        self.scores: dict[int, dict[int, float | None]] = {}

    @property
    def name(self) -> str:
        """Return model and task in words, `tcn on adding`."""
        return f"{self.config['choices']['model']} on {self.config['choices']['task']}"

    def open(self, folder: Path, *, keep: bool) -> None:
        """Open the study, or create it.

        Args:
            folder: folder of the study's file.
            keep: True to store the study in the file; False to use a copy in memory.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / LOG
        self.path = path
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))) if keep else None,
            study_name=STUDY,
            direction="minimize" if self.direction == "min" else "maximize",
            load_if_exists=True,
        )
        if not keep and path.exists():
            kept = JournalStorage(JournalFileBackend(str(path)))
            with suppress(KeyError):  # an earlier call was interrupted before it created the study
                earlier = optuna.load_study(study_name=STUDY, storage=kept)
                study.add_trials(earlier.get_trials(False))
        # A resumed study must not repeat its earlier draws.
        seed = self.settings.seed + len(study.get_trials(False))
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
            if self.settings.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        study.pruner = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=5),
            "hyperband": optuna.pruners.HyperbandPruner(),
            "none": optuna.pruners.NopPruner(),
        }[self.settings.pruner]
        self.study = study
        self.trials = self.settings.trials

    def run(self, sweep: Sweep, launch: Launch) -> None:
        """Run trials until there are enough, and repeat the best, unless the sweep is stopped.

        Args:
            sweep: the sweep that the trials' jobs belong to.
            launch: runs the jobs.
        """
        if sweep.policy.retry:
            for failed in self.study.get_trials(False, states=[TrialState.FAIL]):
                self.study.enqueue_trial(failed.params)
                self.trials += 1
        self.run_trials(sweep, launch)
        words = self.further_runs() if self.left() < 1 else {}
        if words and not sweep.stopped:
            self.repeat(words, sweep, launch)
        elif not words:
            self.is_over = self.left() < 1

    def run_trials(self, sweep: Sweep, launch: Launch) -> None:
        """Run batches of trials until there are enough or the sweep is stopped."""
        trials: dict[Path, optuna.Trial] = {}
        sweep.view.split = "valid"
        sweep.prune = lambda job, progress: should_prune(trials[job.run.folder], progress)
        while not sweep.stopped:
            batch, _ = self.next_batch()
            if not batch:
                return
            words = [self.words(trial) for trial in batch]
            jobs = sweep.compose(words)
            trials = {job.run.folder: trial for job, trial in zip(jobs, batch, strict=True)}
            launch(words)
            lock.check(self.path)
            for trial, job in zip(batch, jobs, strict=True):
                tell(self.study, trial, sweep, job)
            if not all(map(sweep.is_over, jobs)):
                sweep.stopped = sweep.stopped or "a run was interrupted"

    def further_runs(self) -> dict[tuple[int, int], list[str]]:
        """Return (trial number, seed) -> overrides of the runs that repeat the best trials."""
        trials = self.study.get_trials(False, states=[TrialState.COMPLETE])
        maximize = self.study.direction is StudyDirection.MAXIMIZE
        ranked = sorted(trials, key=lambda trial: trial.values[0], reverse=maximize)
        distinct: dict[tuple[str, ...], FrozenTrial] = {}
        for trial in ranked:  # trials with the same settings are the same run
            distinct.setdefault(tuple(overrides(trial.params)), trial)
        first = self.config["seed"] + 1
        shared = [word for word in self.fixed if word.lstrip("+").partition("=")[0] != "seed"]
        return {
            (trial.number, seed): [*shared, *chosen, f"seed={seed}"]
            for chosen, trial in list(distinct.items())[: self.settings.finalists]
            for seed in range(first, first + self.settings.repeats)
        }

    def repeat(self, words: dict[tuple[int, int], list[str]], sweep: Sweep, launch: Launch) -> None:
        """Run the best trials with further seeds, and store their scores in `scores`."""
        sweep.prune = None
        jobs = dict(zip(words, sweep.compose(list(words.values())), strict=True))
        launch(list(words.values()))
        if not all(map(sweep.is_over, jobs.values())):
            sweep.stopped = sweep.stopped or "a run was interrupted"
            return
        self.is_over = True
        trials = self.study.get_trials(False)
        for (number, seed), job in jobs.items():
            of_trial = self.scores.setdefault(
                number, {self.config["seed"]: trials[number].values[0]}
            )
            is_completed = sweep.endings[job.run.folder].how == "completed"
            of_trial[seed] = valid_score(job) if is_completed else None

    def next_batch(self) -> tuple[list[optuna.Trial], int]:
        """Return the trials to run next, and the number of trials left including these.

        Unfinished trials of an earlier call come first; their runs resume from their checkpoints.
        """
        left = self.left()
        count = max(0, min(self.settings.parallel, left))
        begun = self.study.get_trials(False, states=[TrialState.RUNNING])[:count]
        batch = [optuna.Trial(self.study, trial._trial_id) for trial in begun]
        for trial in batch:
            for key, values in self.dimensions.items():
                trial._suggest(key, values)  # keeps a set value, draws one that a crash left out
        new = [self.study.ask(self.dimensions) for _ in range(count - len(batch))]
        return batch + new, left

    def left(self) -> int:
        """Return the number of trials that are left to finish."""
        trials = self.study.get_trials(False)
        return self.trials - sum(trial.state.is_finished() for trial in trials)

    def words(self, trial: optuna.Trial) -> list[str]:
        """Return the overrides of a trial's run."""
        return [*self.fixed, *overrides(trial.params)]


def study_id(config_id: str, searched: dict[str, BaseDistribution]) -> str:
    """Return 12 hex digits that name a study, from what is fixed and what is searched.

    Args:
        config_id: run id of the config that all trials share.
        searched: key -> distribution of each hyperparameter.
    """
    lines = [f"{key}={distribution_to_json(searched[key])}" for key in sorted(searched)]
    return short_hash([config_id, *lines])


def should_prune(trial: optuna.Trial, progress: Progress) -> bool:
    """Report a run's new validation score to the pruner; return True if it prunes the run.

    The score is reported at the step of its evaluation: pruners compare trials at equal steps.
    """
    if progress.score is None:
        return False
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    if progress.scored_step in known:
        return False
    trial.report(progress.score, progress.scored_step)
    return trial.should_prune()


def tell(study: optuna.Study, trial: optuna.Trial, sweep: Sweep, job: Job) -> None:
    """Report a run's ending to the study, unless it was interrupted: then the trial stays open.

    Raises:
        ConfigError: if the run scored no validation split.
    """
    if not sweep.is_over(job):
        return
    ending = sweep.endings[job.run.folder]
    if ending.how == "completed" and (value := valid_score(job)) is not None:
        study.tell(trial, value)
        return
    study.tell(trial, state=TrialState.PRUNED if ending.how == "pruned" else TrialState.FAIL)


def valid_score(job: Job) -> float | None:
    """Return the validation score of a completed run; `None` if its record has none.

    Raises:
        ConfigError: if the run scored no validation split.
    """
    record = job.run.record
    assert record is not None
    assert record.score is not None
    if "valid" not in record.metrics:
        raise ConfigError("a search needs a validation score: leave out trainer.watch=test")
    return record.metrics["valid"][record.score.metric]
