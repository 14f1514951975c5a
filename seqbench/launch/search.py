"""Search hyperparameters with Optuna's ask-and-tell interface, on any launcher.

The sampler proposes a few trials at a time, their runs are launched as those of any sweep, and it
receives their validation scores; the test split is not used. The pruner stops runs that score worse
than others did at the same step. The study is a file in the sweep's folder, so an interrupted
search can resume. Each trial is an ordinary run, which is not trained twice.
"""

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from seqbench.config.choices import CONFIG_FOLDER, choices_of
from seqbench.config.compose import build
from seqbench.config.overrides import typed
from seqbench.config.schema import near_miss
from seqbench.errors import ConfigError, RunError
from seqbench.experiment import build_task
from seqbench.launch.job import Job
from seqbench.launch.progress import Progress
from seqbench.launch.sweep import Sweep
from seqbench.runs import atomic, lock

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ModuleNotFoundError:
    raise ConfigError("search=optuna needs Optuna: pip install 'seqbench[hpo]'") from None

STUDY, LOG = "search", "optuna.log"
# Keys with a single value per search: scores across several values cannot be compared.
ONE_OF_EACH = {"model", "task", "budget", "protocol", "seed"}
# Overrides that a command need not repeat when it uses the recipe of a search.
IN_RECIPE = {"model", "task", "recipe"}
WORDS = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not over",
    TrialState.WAITING: "not begun",
}


class Search:
    """A search for the best hyperparameters of one model on one task.

    Args:
        trials: trials in total, including those of earlier calls.
        parallel: trials at a time; the sampler proposes them together.
        sampler: Optuna sampler that proposes hyperparameters.
        pruner: Optuna pruner that stops unpromising trials.
        seed: seed of the sampler.
        space: name of a search space in configs/search_space; `none`: search only the overrides
            with several values; `None`: the search space named after the model, if there is one.

    Raises:
        ConfigError: if a number is not positive, or the search space does not exist.
    """

    def __init__(
        self,
        trials: int,
        parallel: int,
        sampler: Literal["tpe", "random"],
        pruner: Literal["median", "hyperband", "none"],
        seed: int,
        space: str | None,
    ) -> None:
        if trials < 1 or parallel < 1:
            raise ConfigError("search.trials and search.parallel must be positive")
        if space not in (None, "none") and space not in (known := choices_of("search_space")):
            raise ConfigError(f"no search space named '{space}'{near_miss(str(space), known)}")
        self.trials, self.parallel, self.seed, self.space = trials, parallel, seed, space
        self.sampler, self.pruner = sampler, pruner

    def run(
        self, sweep: Sweep, launch: Callable[[Sequence[Sequence[str]]], Any], typed: list[str]
    ) -> None:
        """Run trials until there are enough, and write the result to `sweep.findings`.

        Args:
            sweep: the sweep that the trials' jobs belong to.
            launch: runs one job per list of overrides, and returns when all have ended.
            typed: overrides from the command line; those with several values are searched, too.

        Raises:
            ConfigError: if there is nothing to search, or the overrides do not suit a search.
            RunLocked: if another process runs this search.
            RunError: if all trials ended and none completed.
        """
        if sweep.policy.force or not sweep.policy.wait:
            option = "--force" if sweep.policy.force else "--no-wait"
            raise ConfigError(f"a search takes no {option}: each score tells it what to try next")
        parser = OverridesParser.create()
        given = parser.parse_overrides(typed)
        several = {plain_key(override) for override in given if override.is_sweep_override()}
        if unlike := sorted(ONE_OF_EACH & several):
            raise ConfigError(
                f"a search is of one {unlike[0]}, not several: their scores cannot be told apart "
                "by what is searched"
            )
        fixed = [str(o.input_line) for o in given if not o.is_sweep_override()]
        first = sweep.composer.compose(fixed)
        searched = {plain_key(o): o for o in self.own_space(parser, first["choices"]["model"])}
        for override in given:
            searched.pop(plain_key(override), None)
            if override.is_sweep_override():
                searched[plain_key(override)] = override
        if not searched:
            raise ConfigError("there is nothing to search: give a value as in a sweep")
        self.fixed = fixed
        self.dimensions = {key: dimension(override) for key, override in searched.items()}
        primary = build_task(first, build("trainer", first)).primary
        folder = Path(first["output_dir"]) / "sweeps" / sweep.id
        if sweep.policy.dry_run:
            study = self.study(folder / LOG, primary.direction, to_keep=False)
            batch, left = self.next_batch(study)
            launch([self.words(trial) for trial in batch])
            others = f"; the settings of the other {left - len(batch)} follow from how they end"
            if left > len(batch):
                sweep.findings = f"{len(batch)} of {left} trials{others}"
            return
        folder.mkdir(parents=True, exist_ok=True)
        with lock.held(folder, "this search"):
            study = self.study(folder / LOG, primary.direction, to_keep=True)
            if sweep.policy.retry:
                for failed in study.get_trials(False, states=[TrialState.FAIL]):
                    study.enqueue_trial(failed.params)
                    self.trials += 1
            trials: dict[Path, optuna.Trial] = {}
            sweep.view.split = "valid"
            sweep.judge = lambda job, progress: promising(trials[job.run.folder], progress)
            while not sweep.stopped:
                batch, _ = self.next_batch(study)
                if not batch:
                    break
                words = [self.words(trial) for trial in batch]
                jobs = [sweep.job(one) for one in words]
                trials = {job.run.folder: trial for job, trial in zip(jobs, batch, strict=True)}
                launch(words)
                for trial, job in zip(batch, jobs, strict=True):
                    tell(study, trial, sweep, job)
                if not all(map(sweep.is_over, jobs)):
                    sweep.stopped = sweep.stopped or "a run was interrupted"
            if self.left(study) < 1:
                sweep.stopped = None  # all trials had finished before the stop took effect
            self.report(study, sweep, primary.metric, folder)

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

    def own_space(self, parser: OverridesParser, model: str) -> list[Override]:
        """Return the overrides of the chosen search space, or else of the model's own, if any."""
        name = model if self.space is None else self.space
        if name not in choices_of("search_space"):
            return []
        text = (CONFIG_FOLDER / "search_space" / f"{name}.yaml").read_text(encoding="utf-8")
        lines = [f"{key}={value}" for key, value in yaml.safe_load(text).items()]
        return parser.parse_overrides(lines)

    def study(self, path: Path, direction: str, to_keep: bool) -> optuna.Study:
        """Open or create the study.

        Args:
            path: Optuna journal file.
            direction: of a better score, `min` or `max`.
            to_keep: store the study in the file; otherwise return an in-memory copy.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))) if to_keep else None,
            study_name=STUDY,
            direction="minimize" if direction == "min" else "maximize",
            load_if_exists=True,
        )
        if not to_keep and path.exists():
            kept = JournalStorage(JournalFileBackend(str(path)))
            with suppress(KeyError):  # an earlier call was interrupted before it created the study
                earlier = optuna.load_study(study_name=STUDY, storage=kept)
                study.add_trials(earlier.get_trials(False))
        # A resumed study must not repeat its earlier draws.
        seed = self.seed + len(study.get_trials(False))
        samplers = optuna.samplers
        study.sampler = (
            samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
            if self.sampler == "tpe"
            else samplers.RandomSampler(seed=seed)
        )
        study.pruner = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=5),
            "hyperband": optuna.pruners.HyperbandPruner(),
            "none": optuna.pruners.NopPruner(),
        }[self.pruner]
        return study

    def report(self, study: optuna.Study, sweep: Sweep, metric: str, folder: Path) -> None:
        """Write the best trial as a recipe and all trials as CSV; set `sweep.findings`.

        Raises:
            RunError: if no trial completed, and the search was not stopped.
        """
        trials = study.get_trials(False)
        states = Counter(WORDS[trial.state] for trial in trials)
        if "completed" not in states:
            if sweep.stopped is None:
                raise RunError(
                    f"none of {len(trials)} trials completed: {counted(states)}; --retry runs them "
                    "again"
                )
            sweep.findings = f"no trial completed yet: {counted(states)}"
            return
        best = study.best_trial
        job = sweep.job([*self.fixed, *overrides(best.params)])
        task, model = job.config["choices"]["task"], job.config["choices"]["model"]
        name = f"{task}_{model}"
        place = folder / "recipe"
        place.mkdir(exist_ok=True)
        # Compare with a config without a recipe: what the recipe in force sets is kept, too.
        bare = [word for word in self.fixed if not word.lstrip("+").startswith("recipe=")]
        without = sweep.job([*bare, "recipe=none", *overrides(best.params)])
        text = yaml.safe_dump(recipe(job, without, metric, best, len(trials)), sort_keys=False)
        atomic.write(place / f"{name}.yaml", f"# @package _global_\n{text}".encode())
        with (place / f"{name}.trials.csv").open("w", encoding="utf-8", newline="") as file:
            keys = sorted({key for trial in trials for key in trial.params})
            writer = csv.writer(file)
            writer.writerow(["trial", "state", f"valid_{metric}", *keys])
            for trial in trials:
                values = [trial.params.get(key, "") for key in keys]
                writer.writerow([trial.number, trial.state.name.lower(), trial.value, *values])
        fixed = typed(self.fixed)
        chosen = [*fixed, *overrides(best.params)]
        # Drop overrides that would replace a node of the recipe, such as optimizer=adam.
        told = IN_RECIPE | {key.partition(".")[0] for key in best.params}
        rest = [word for word in fixed if word.partition("=")[0] not in told]
        with_recipe = [f"model={model}", f"task={task}", *rest]
        sweep.findings = (
            f"best of {len(trials)} trials ({counted(states)}): "
            f"valid {metric} {best.value:.4g}\n"
            f"  {shlex.join(['seqbench', 'train', *chosen])}\n"
            f"as a recipe, with its trials: {place / name}.yaml\n"
            f"  {shlex.join(['seqbench', 'train', '--config-dir', str(folder), *with_recipe])}"
        )


def counted(states: Counter[str]) -> str:
    """Return the number of trials per state as text."""
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def plain_key(override: Override) -> str:
    """Return the key of an override without leading `+`."""
    return str(override.get_key_element()).lstrip("+")


def dimension(override: Override) -> optuna.distributions.BaseDistribution:
    """Return the Optuna distribution of an override.

    Raises:
        ConfigError: if its kind of sweep cannot be searched, or it holds no value.
    """
    try:
        return distribution(override)
    except ValueError as error:
        raise ConfigError(f"{override.input_line} cannot be searched: {error}") from error


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Return the Optuna distribution of an override.

    Raises:
        ConfigError: if its kind of sweep cannot be searched.
        ValueError: if it holds no value.
    """
    value: Any = override.value()
    log = "log" in getattr(value, "tags", ())
    if isinstance(value, IntervalSweep):
        low, high = float(value.start or 0), float(value.end or 0)
        return optuna.distributions.FloatDistribution(low, high, log=log)
    if isinstance(value, RangeSweep):
        first, last, step = float(value.start or 0), float(value.stop or 0), float(value.step)
        if first.is_integer() and last.is_integer() and step.is_integer():
            values = range(int(first), int(last), int(step))
            return optuna.distributions.IntDistribution(
                min(values), max(values), step=abs(values.step)
            )
    if override.is_discrete_sweep():
        return optuna.distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    raise ConfigError(f"{override.input_line} cannot be searched")


def overrides(params: dict[str, Any]) -> list[str]:
    """Return a trial's parameters as overrides; floats are rounded to four significant digits."""
    return [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    ]


def promising(trial: optuna.Trial, progress: Progress) -> bool:
    """Report a run's last validation score to the pruner; return True unless it prunes the run."""
    if progress.score is None:
        return True
    trial.report(progress.score, progress.step)
    return not trial.should_prune()


def tell(study: optuna.Study, trial: optuna.Trial, sweep: Sweep, job: Job) -> None:
    """Report a run's ending to the study, unless it was interrupted: then the trial stays open.

    Raises:
        ConfigError: if the record has no validation score.
    """
    if not sweep.is_over(job):
        return
    ending = sweep.endings[job.run.folder]
    if ending.how == "completed":
        record = job.run.record
        assert record is not None
        assert record.score is not None
        if "valid" not in record.metrics:
            raise ConfigError("a search needs a validation score: leave out trainer.watch=test")
        value = record.metrics["valid"][record.score.metric]
        if value is not None:
            study.tell(trial, value)
            return
    study.tell(trial, state=TrialState.PRUNED if ending.how == "pruned" else TrialState.FAIL)


def recipe(job: Job, without: Job, metric: str, best: Any, count: int) -> dict[str, Any]:
    """Return the best trial in the format of `configs/recipe`.

    It holds the searched hyperparameters, and what the recipe in force during the search had set.

    Args:
        job: job of the best trial.
        without: the same job composed with `recipe=none`.
        metric: metric of the score.
        best: the best trial.
        count: number of trials.
    """
    config, bare = job.config, without.config
    at = " ".join(
        f"{key}={config['trainer'][key]}"
        for key in ("steps", "epochs")
        if config["trainer"][key] is not None
    )
    result: dict[str, Any] = {
        "recipe": {
            "source": f"search of {count} trials by Optuna, all of them in "
            f"{config['choices']['task']}_{config['choices']['model']}.trials.csv",
            "expected": {
                "split": "valid",
                "metric": metric,
                "value": best.value,
                "at": f"budget={config['budget']} {at}",
            },
        }
    }
    searched = set(best.params)
    for node in ("optimizer", "schedule"):
        if config[node] != bare[node] or any(key.partition(".")[0] == node for key in searched):
            # The whole node: applied over another choice, a part would keep that choice's values.
            result["recipe"][node] = json.loads(json.dumps(config[node]))
    for node in ("task", "model", "trainer"):
        for name, value in config[node].items():
            if f"{node}.{name}" in searched or value != bare[node].get(name):
                result.setdefault(node, {})[name] = value
    return result
