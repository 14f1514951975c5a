"""Say which settings a run takes if there is no recipe for its task and model."""

from collections.abc import Iterable, Sequence

from seqbench.config import Config
from seqbench.config.choices import find_choice


def missing_recipes(
    configs: Iterable[Config], overrides: Sequence[str], config_dir: str | None
) -> dict[str, str]:
    """Return a note for each pair of task and model that has no recipe, by the recipe's name.

    Args:
        configs: composed from the overrides.
        overrides: as typed; `recipe=` among them needs no note.
        config_dir: folder with the user's choices.
    """
    if any(word.lstrip("+~").partition("=")[0] == "recipe" for word in overrides):
        return {}
    settings: dict[tuple[str, str], list[str]] = {}
    for config in configs:
        pair = config["choices"]["task"], config["choices"]["model"]
        if find_choice(f"recipe/{'_'.join(pair)}", config_dir) is None:
            settings.setdefault(pair, []).append(settings_of(config))
    notes = {}
    for (task, model), used in settings.items():
        name = f"{task}_{model}"
        shown = used[0] if len(set(used)) == 1 else "optimizer and clipping as typed"
        file = f"{config_dir or 'MY_CONFIGS'}/recipe/{name}.yaml"
        option = "" if config_dir else " for --config-dir MY_CONFIGS"
        notes[name] = (
            f"note: there is no recipe for {model} on {task}: {shown}; "
            f"to set others, write {file}{option}, see docs/your_own_model.md"
        )
    return notes


def settings_of(config: Config) -> str:
    """Return optimizer, learning rate, schedule and clipping of a config as text."""
    optimizer, schedule = (
        config[node]["_target_"].rpartition(".")[2] for node in ("optimizer", "schedule")
    )
    rate, clip = config["optimizer"].get("lr", "by default"), config["trainer"].get("clip")
    return (
        f"{optimizer} with learning rate {rate}, {schedule.lower()} schedule, "
        f"{'no gradient clipping' if clip is None else f'gradients clipped at {clip}'}"
    )
