"""Search hyperparameters on any launcher, and write the best as recipes.

Each model on each task has a search of its own, with the same number of trials, so that models are
tuned alike. The recipes of all are in one folder, which `--config-dir` reads.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from shlex import join, quote

from hydra.core.override_parser.types import Override

from seqbench.config.build import build
from seqbench.config.overrides import ADDED_NULLS, as_typed
from seqbench.errors import ConfigError, RunError
from seqbench.experiment.build import build_task
from seqbench.launch.search_report import in_recipe, report
from seqbench.launch.search_space import dimensions, first_values, plain_key, space_overrides
from seqbench.launch.study import Launch, Settings, Study
from seqbench.launch.sweep import Sweep, short_hash
from seqbench.runs import lock
from seqbench.user_files import make_folders
from seqbench.wording import counted

# Each combination of their values has a search of its own.
OWN_SEARCH = ("model", "task")
# Keys with a single value per search: scores across several values cannot be compared.
ONE_OF_EACH = {"budget", "protocol", "seed"}
ONE_OF_EACH |= {f"task.{name}" for name in ("path", "dataset", "target", "horizon")}
# Number of seeds in the command that trains with the recipes, after a search with repeats.
NEW_SEEDS = 5


def search(settings: Settings, sweep: Sweep, launch: Launch, typed: Sequence[Override]) -> None:
    """Run trials until there are enough, and write the result to `sweep.summary`.

    Args:
        settings: settings of the search.
        sweep: the sweep that the trials' jobs belong to.
        launch: runs one job per list of overrides, and returns when all have ended.
        typed: overrides from the command line; those with several values are searched, too, except
            models and tasks.

    Raises:
        ConfigError: if there is nothing to search, or the overrides do not suit a search.
        RunLocked: if another process runs the only search.
        RunError: if no trial of the only search completed, or none with all its seeds. Of several
            searches, the others go on, and the error is in `sweep.error`.
    """
    if sweep.policy.force or not sweep.policy.wait:
        option = "--force" if sweep.policy.force else "--no-wait"
        raise ConfigError(f"a search takes no {option}: each score tells it what to try next")
    studies = studies_of(settings, sweep, typed)
    ids = sorted(study.id for study in studies)
    sweep.id = ids[0] if len(ids) == 1 else short_hash(ids)
    output = Path(studies[0].config["output_dir"]) / "sweeps"
    if sweep.policy.dry_run:
        sweep.summary = plan(studies, launch, output)
        return
    found: list[str] = []
    failed: list[RunError] = []
    for study in studies:
        folder = output / study.id
        make_folders(folder)
        try:
            with lock.held(folder, f"the search of {study.name}"):
                study.open(folder, keep=True)
                study.run(sweep, launch)
                found.append(report(study, sweep, output / sweep.id))
        except RunError as error:
            failed.append(error)
        if sweep.stopped:
            break
    if all(study.is_over for study in studies):
        sweep.stopped = None  # all runs had finished before the stop took effect
    if failed and len(studies) == 1:
        raise failed[0]
    found += map(str, failed)
    if failed:
        sweep.error = RunError(f"{len(failed)} of {len(studies)} searches found nothing")
    elif not sweep.stopped:
        found += next_commands(studies, output / sweep.id, sweep.composer.config_dir)
    sweep.summary = "\n".join(found)


def studies_of(settings: Settings, sweep: Sweep, typed: Sequence[Override]) -> list[Study]:
    """Return the study of each model on each task.

    Raises:
        ConfigError: if the overrides of one do not suit a search, or cannot be composed.
    """
    swept = {plain_key(override): override for override in typed if override.is_sweep_override()}
    if unlike := sorted(ONE_OF_EACH & swept.keys()):
        raise ConfigError(
            f"a search is of one {unlike[0]}, not several: their scores cannot be told apart "
            "by what is searched"
        )
    names = [key for key in OWN_SEARCH if key in swept]
    own = [list(swept[key].sweep_string_iterator()) for key in names]
    searched = [override for override in typed if plain_key(override) not in names]
    shared = [str(override.input_line) for override in typed if not override.is_sweep_override()]
    lengths = {"trainer.steps", "trainer.epochs"} & swept.keys()
    unset = [f"++{word}" for word in ADDED_NULLS] if lengths else []
    studies: dict[str, Study] = {}
    for values in product(*own):
        fixed = [*(f"{key}={value}" for key, value in zip(names, values, strict=True)), *shared]
        # Without a length of training of its own where that is searched.
        config = sweep.composer.compose([word for word in fixed if word not in unset])
        model = config["choices"]["model"]
        space = space_overrides(settings.space, model, sweep.composer.config_dir)
        distributions = dimensions(searched, space)
        if not distributions:
            raise ConfigError(f"there is nothing to search for {model}: give a value as in a sweep")
        # An error in what is searched must not show up after the searches before.
        sweep.compose([[*fixed, *first_values(distributions)]])
        primary = build_task(config, build("trainer", config)).primary
        given = config, fixed, distributions, primary.metric, primary.direction
        study = Study(settings, *given)
        studies.setdefault(study.id, study)
    return list(studies.values())


def plan(studies: Sequence[Study], launch: Launch, output: Path) -> str | None:
    """Plan the jobs that are known now; return what is not: it follows from others' scores.

    Args:
        studies: the studies.
        launch: plans the jobs.
        output: folder of the studies' folders.
    """
    known = total = 0
    for study in studies:
        study.open(output / study.id, keep=False)
        batch, left = study.next_batch()
        launch([study.words(trial) for trial in batch] or list(study.further_runs().values()))
        known, total = known + len(batch), total + left
    lines = []
    if total > known:
        rest = f"the settings of the other {total - known} follow from how they end"
        lines.append(f"{known} of {total} trials; {rest}")
    settings = studies[0].settings
    if settings.repeats and total:
        best = min(settings.finalists, settings.trials)
        each = " of each search" if len(studies) > 1 else ""
        further = counted(settings.repeats, "further seed")
        lines.append(f"then the {best} best{each} with {further} each")
    return "\n".join(lines) or None


def next_commands(studies: Sequence[Study], recipes: Path, config_dir: str | None) -> list[str]:
    """Return the commands that train with the recipes that the searches found.

    Args:
        studies: the studies.
        recipes: folder whose folder `recipe` has the recipes.
        config_dir: the user's folder of choices; it gets the recipes, as models may be there.
    """
    settings, seed = studies[0].settings, studies[0].config["seed"]
    choices = [study.config["choices"] for study in studies]
    of = {key: ",".join(dict.fromkeys(choice[key] for choice in choices)) for key in OWN_SEARCH}
    fixed = [word for word in as_typed(studies[0].fixed) if not in_recipe(word)]
    left_out = (*OWN_SEARCH, "seed") if settings.repeats else OWN_SEARCH
    rest = [word for word in fixed if word.partition("=")[0] not in left_out]
    if settings.repeats:  # seeds that the search has not used
        first = seed + 1 + settings.repeats
        rest.append(f"seed=range({first},{first + NEW_SEEDS})")
    command = "train" if len(studies) == 1 and not settings.repeats else "sweep"
    folder = config_dir or str(recipes)
    words = ["--config-dir", folder, *(f"{key}={of[key]}" for key in of), *rest]
    lines = [f"  {join(['seqbench', command, *words])}"]
    if config_dir is not None:
        mine = quote(f"{config_dir}/recipe")
        lines.insert(0, f"  mkdir -p {mine} && cp {quote(str(recipes / 'recipe'))}/* {mine}")
    return lines
