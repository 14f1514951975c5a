"""Search hyperparameters with Optuna's ask-and-tell interface, on any launcher.

The sampler proposes a few trials at a time, their runs are launched as those of any sweep, and it
receives their validation scores; the test split is not used. The pruner stops runs that score worse
than others did at the same step. The study is a file in the sweep's folder, named by a hash of what
is searched, so an interrupted search can resume and a finished one can get more trials. Each trial
is an ordinary run, which is not trained twice. If asked for, the best trials are trained with
further seeds, and the best mean is chosen: a single run may score well by chance.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from seqbench.config.build import build
from seqbench.errors import ConfigError, RunError
from seqbench.experiment.build import build_task
from seqbench.launch.job import Job
from seqbench.launch.progress import Progress
from seqbench.launch.search_report import report
from seqbench.launch.search_space import dimensions, overrides, plain_key, space_overrides
from seqbench.launch.sweep import Sweep, short_hash
from seqbench.runs import lock
from seqbench.runs.identity import run_id
from seqbench.user_files import make_folders
from seqbench.wording import counted

STUDY, LOG = "search", "optuna.log"
# Keys with a single value per search: scores across several values cannot be compared.
ONE_OF_EACH = {"model", "task", "budget", "protocol", "seed"}


class Search:
    """A search for the best hyperparameters of one model on one task.

    Args:
        trials: trials in total, including those of earlier calls.
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

    def __init__(
        self,
        trials: int,
        parallel: int,
        sampler: Literal["tpe", "random"],
        pruner: Literal["median", "hyperband", "none"],
        seed: int,
        space: str | None,
        repeats: int,
        finalists: int,
    ) -> None:
        if min(trials, parallel, finalists) < 1 or repeats < 0:
            raise ConfigError(
                "search.trials, parallel and finalists must be positive, search.repeats 0 or more"
            )
        self.trials, self.parallel, self.seed, self.space = trials, parallel, seed, space
        self.sampler, self.pruner = sampler, pruner
        self.repeats, self.finalists = repeats, finalists

    def run(
        self, sweep: Sweep, launch: Callable[[Sequence[Sequence[str]]], Any], typed: list[str]
    ) -> None:
        """Run trials until there are enough, and write the result to `sweep.summary`.

        Args:
            sweep: the sweep that the trials' jobs belong to.
            launch: runs one job per list of overrides, and returns when all have ended.
            typed: overrides from the command line; those with several values are searched, too.

        Raises:
            ConfigError: if there is nothing to search, or the overrides do not suit a search.
            RunLocked: if another process runs this search.
            RunError: if all trials ended and none completed, or no finalist with all its seeds.
        """
        if sweep.policy.force or not sweep.policy.wait:
            option = "--force" if sweep.policy.force else "--no-wait"
            raise ConfigError(f"a search takes no {option}: each score tells it what to try next")
        parsed = OverridesParser.create().parse_overrides(typed)
        several = {plain_key(override) for override in parsed if override.is_sweep_override()}
        if unlike := sorted(ONE_OF_EACH & several):
            raise ConfigError(
                f"a search is of one {unlike[0]}, not several: their scores cannot be told apart "
                "by what is searched"
            )
        self.fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
        config = sweep.composer.compose(self.fixed)
        model = config["choices"]["model"]
        space = space_overrides(self.space, model, sweep.composer.config_dir)
        self.dimensions = dimensions(parsed, space)
        sweep.id = study_id(run_id(config), self.dimensions)
        primary = build_task(config, build("trainer", config)).primary
        folder = Path(config["output_dir"]) / "sweeps" / sweep.id
        if sweep.policy.dry_run:
            study = self.study(folder / LOG, primary.direction, keep=False)
            batch, left = self.next_batch(study)
            launch([self.words(trial) for trial in batch])
            sweep.summary = self.plan(len(batch), left)
            return
        make_folders(folder)
        with lock.held(folder, "this search"):
            study = self.study(folder / LOG, primary.direction, keep=True)
            if sweep.policy.retry:
                for failed in study.get_trials(False, states=[TrialState.FAIL]):
                    study.enqueue_trial(failed.params)
                    self.trials += 1
            self.run_trials(study, sweep, launch, folder)
            if self.left(study) < 1 and not self.repeats:
                sweep.stopped = None  # all trials had finished before the stop took effect
            repeated = self.repeat(study, sweep, launch, config["seed"])
            sweep.summary = report(study, sweep, self.fixed, primary.metric, folder, repeated)
            if self.repeats and sweep.stopped:
                sweep.summary += "\nits best trials are not all repeated yet"

    def run_trials(
        self,
        study: optuna.Study,
        sweep: Sweep,
        launch: Callable[[Sequence[Sequence[str]]], Any],
        folder: Path,
    ) -> None:
        """Run batches of trials until there are enough or the sweep is stopped."""
        trials: dict[Path, optuna.Trial] = {}
        sweep.view.split = "valid"
        sweep.prune = lambda job, progress: should_prune(trials[job.run.folder], progress)
        while not sweep.stopped:
            batch, _ = self.next_batch(study)
            if not batch:
                return
            words = [self.words(trial) for trial in batch]
            jobs = sweep.compose(words)
            trials = {job.run.folder: trial for job, trial in zip(jobs, batch, strict=True)}
            launch(words)
            lock.check(folder / LOG)
            for trial, job in zip(batch, jobs, strict=True):
                tell(study, trial, sweep, job)
            if not all(map(sweep.is_over, jobs)):
                sweep.stopped = sweep.stopped or "a run was interrupted"

    def plan(self, count: int, left: int) -> str | None:
        """Return what a dry run cannot show: trials and seeds that follow from others' scores.

        Args:
            count: trials that are shown.
            left: trials that are left, including these.
        """
        lines = []
        if left > count:
            rest = f"the settings of the other {left - count} follow from how they end"
            lines.append(f"{count} of {left} trials; {rest}")
        if self.repeats:
            lines.append(
                f"then the {self.finalists} best with {counted(self.repeats, 'further seed')} each"
            )
        return "\n".join(lines) or None

    def repeat(
        self,
        study: optuna.Study,
        sweep: Sweep,
        launch: Callable[[Sequence[Sequence[str]]], Any],
        seed: int,
    ) -> dict[int, dict[int, float]]:
        """Run the best trials with further seeds.

        Args:
            study: the study.
            sweep: the sweep that the jobs belong to.
            launch: runs one job per list of overrides, and returns when all have ended.
            seed: seed of the trials.

        Returns:
            Trial number -> seed -> validation score, for the finalists that completed with all
            seeds; empty if none is repeated, or the sweep was stopped.

        Raises:
            RunError: if no finalist completed with all seeds.
        """
        trials = study.get_trials(False, states=[TrialState.COMPLETE])
        if not self.repeats or sweep.stopped or not trials:
            return {}
        sweep.prune = None
        maximize = study.direction is optuna.study.StudyDirection.MAXIMIZE
        ranked = sorted(trials, key=lambda trial: trial.values[0], reverse=maximize)
        distinct: dict[tuple[str, ...], optuna.trial.FrozenTrial] = {}
        for trial in ranked:  # trials with the same settings are the same run
            distinct.setdefault(tuple(overrides(trial.params)), trial)
        finalists = list(distinct.values())[: self.finalists]
        seeds = range(seed + 1, seed + 1 + self.repeats)
        shared = [word for word in self.fixed if word.partition("=")[0] != "seed"]
        words = {
            (trial.number, other): [*shared, *overrides(trial.params), f"seed={other}"]
            for trial in finalists
            for other in seeds
        }
        jobs = dict(zip(words, sweep.compose(list(words.values())), strict=True))
        launch(list(words.values()))
        if not all(map(sweep.is_over, jobs.values())):
            sweep.stopped = sweep.stopped or "a run was interrupted"
            return {}
        sweep.stopped = None  # all runs had finished before the stop took effect
        scores = {trial.number: {seed: trial.values[0]} for trial in finalists}
        for (number, other), job in jobs.items():
            score = valid_score(job) if sweep.endings[job.run.folder].how == "completed" else None
            if score is None:
                scores.pop(number, None)
            elif number in scores:
                scores[number][other] = score
        if not scores:
            raise RunError(
                f"of the {counted(len(finalists), 'best trial')}, none completed with "
                f"{counted(self.repeats, 'further seed')}; --retry runs them again"
            )
        return scores

    def next_batch(self, study: optuna.Study) -> tuple[list[optuna.Trial], int]:
        """Return the trials to run next, and the number of trials left including these.

        Unfinished trials of an earlier call come first; their runs resume from their checkpoints.
        """
        left = self.left(study)
        count = max(0, min(self.parallel, left))
        begun = study.get_trials(False, states=[TrialState.RUNNING])[:count]
        batch = [optuna.Trial(study, trial._trial_id) for trial in begun]
        for trial in batch:
            for key, values in self.dimensions.items():
                trial._suggest(key, values)  # keeps a set value, draws one that a crash left out
        return batch + [study.ask(self.dimensions) for _ in range(count - len(batch))], left

    def left(self, study: optuna.Study) -> int:
        """Return the number of trials that are left to finish."""
        return self.trials - sum(trial.state.is_finished() for trial in study.get_trials(False))

    def words(self, trial: optuna.Trial) -> list[str]:
        """Return the overrides of a trial's run."""
        return [*self.fixed, *overrides(trial.params)]

    def study(self, path: Path, direction: str, keep: bool) -> optuna.Study:
        """Open or create the study.

        Args:
            path: Optuna journal file.
            direction: of a better score, `min` or `max`.
            keep: store the study in the file; otherwise return an in-memory copy.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))) if keep else None,
            study_name=STUDY,
            direction="minimize" if direction == "min" else "maximize",
            load_if_exists=True,
        )
        if not keep and path.exists():
            kept = JournalStorage(JournalFileBackend(str(path)))
            with suppress(KeyError):  # an earlier call was interrupted before it created the study
                earlier = optuna.load_study(study_name=STUDY, storage=kept)
                study.add_trials(earlier.get_trials(False))
        # A resumed study must not repeat its earlier draws.
        seed = self.seed + len(study.get_trials(False))
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
            if self.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        study.pruner = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=5),
            "hyperband": optuna.pruners.HyperbandPruner(),
            "none": optuna.pruners.NopPruner(),
        }[self.pruner]
        return study


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
        ConfigError: if the record has no validation score.
    """
    if not sweep.is_over(job):
        return
    ending = sweep.endings[job.run.folder]
    if ending.how == "completed" and (value := valid_score(job)) is not None:
        study.tell(trial, value)
        return
    study.tell(trial, state=TrialState.PRUNED if ending.how == "pruned" else TrialState.FAIL)


def valid_score(job: Job) -> float | None:
    """Return the validation score of a completed run; `None` if it is not a finite number.

    Raises:
        ConfigError: if the record has no validation score.
    """
    record = job.run.record
    assert record is not None
    assert record.score is not None
    if "valid" not in record.metrics:
        raise ConfigError("a search needs a validation score: leave out trainer.watch=test")
    return record.metrics["valid"][record.score.metric]
