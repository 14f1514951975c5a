"""Search hyperparameters on any launcher, and write the best as recipes.

Each model on each task has a search of its own, with the same number of trials, so that models are
tuned alike. The recipes of all are in one folder, which `--config-dir` reads.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from shlex import join

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from seqbench.config.build import build
from seqbench.config.overrides import as_typed
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


def search(settings: Settings, sweep: Sweep, launch: Launch, typed: list[str]) -> None:
    """Run trials until there are enough, and write the result to `sweep.summary`.

    Args:
        settings: settings of the search.
        sweep: the sweep that the trials' jobs belong to.
        launch: runs one job per list of overrides, and returns when all have ended.
        typed: overrides from the command line; those with several values are searched, too, except
            models and tasks.

    Raises:
        ConfigError: if there is nothing to search, or the overrides do not suit a search.
        RunLocked: if another process runs one of the searches.
        RunError: if all trials ended and none completed, or no repeated trial with all its seeds.
            If that is true of some searches only, the error is in `sweep.error`.
    """
    if sweep.policy.force or not sweep.policy.wait:
        option = "--force" if sweep.policy.force else "--no-wait"
        raise ConfigError(f"a search takes no {option}: each score tells it what to try next")
    studies = studies_of(settings, sweep, OverridesParser.create().parse_overrides(typed))
    sweep.id = studies[0].id if len(studies) == 1 else short_hash(study.id for study in studies)
    output = Path(studies[0].config["output_dir"]) / "sweeps"
    if sweep.policy.dry_run:
        sweep.summary = plan(settings, studies, sweep, launch, output)
        return
    found: list[str] = []
    failed: list[RunError] = []
    for study in studies:
        make_folders(output / study.id)
        with lock.held(output / study.id, "this search"):
            study.open(output / study.id, keep=True)
            try:
                repeated = study.run(sweep, launch)
                found.append(report(study, sweep, output / sweep.id, repeated))
            except RunError as error:
                failed.append(error)
        if sweep.stopped:
            break
    if all(study.is_over for study in studies):
        sweep.stopped = None  # all runs had finished before the stop took effect
    if failed and not found:
        raise failed[0]
    if failed:
        sweep.error = failed[0]
    elif not sweep.stopped:
        found.append(next_command(studies, output / sweep.id))
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
    own = [swept[key].sweep_string_iterator() for key in OWN_SEARCH if key in swept]
    searched = [override for override in typed if plain_key(override) not in OWN_SEARCH]
    shared = [str(override.input_line) for override in typed if not override.is_sweep_override()]
    studies = []
    for values in product(*map(list, own)):
        names = [key for key in OWN_SEARCH if key in swept]
        fixed = [*(f"{key}={value}" for key, value in zip(names, values, strict=True)), *shared]
        config = sweep.composer.compose(fixed)
        model = config["choices"]["model"]
        space = space_overrides(settings.space, model, sweep.composer.config_dir)
        distributions = dimensions(searched, space)
        # An error in what is searched must not show up after the searches before.
        sweep.compose([[*fixed, *first_values(distributions)]])
        primary = build_task(config, build("trainer", config)).primary
        given = config, fixed, distributions, primary.metric, primary.direction
        studies.append(Study(settings, *given))
    return studies


def plan(
    settings: Settings, studies: Sequence[Study], sweep: Sweep, launch: Launch, output: Path
) -> str | None:
    """Plan the jobs that are known now; return what is not: it follows from others' scores.

    Args:
        settings: settings of the search.
        studies: the studies.
        sweep: the sweep that the jobs belong to.
        launch: plans the jobs.
        output: folder of the studies' folders.
    """
    known = total = 0
    for study in studies:
        study.open(output / study.id, keep=False)
        batch, left = study.next_batch()
        launch([study.words(trial) for trial in batch])
        known, total = known + len(batch), total + left
    lines = []
    if total > known:
        rest = f"the settings of the other {total - known} follow from how they end"
        lines.append(f"{known} of {total} trials; {rest}")
    if settings.repeats:
        each = " of each search" if len(studies) > 1 else ""
        further = counted(settings.repeats, "further seed")
        lines.append(f"then the {settings.finalists} best{each} with {further} each")
    return "\n".join(lines) or None


def next_command(studies: Sequence[Study], recipes: Path) -> str:
    """Return the command that trains with the recipes that the searches found."""
    choices = [study.config["choices"] for study in studies]
    of = {key: ",".join(dict.fromkeys(choice[key] for choice in choices)) for key in OWN_SEARCH}
    fixed = [word for word in as_typed(studies[0].fixed) if not in_recipe(word)]
    rest = [word for word in fixed if word.partition("=")[0] not in OWN_SEARCH]
    command = "train" if len(studies) == 1 else "sweep"
    with_recipes = ["--config-dir", str(recipes), *(f"{key}={of[key]}" for key in of), *rest]
    return f"  {join(['seqbench', command, *with_recipes])}"
