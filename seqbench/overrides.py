"""The words of a command line, made into overrides that Hydra takes."""

from collections.abc import Iterable

from seqbench.choices import groups

# Their values are paths.
PATHS = ("output_dir", "data_dir", "task.path")
# Words of ours for Hydra's launcher and sweeper: `launch=slurm`, `search.trials=9`.
SHORT = {"launch": "launcher", "search": "sweeper"}
# Which of steps and epochs was not typed follows.
FOLLOWS = ("trainer.steps=null", "trainer.epochs=null")


def as_text(override: str) -> str:
    """An override, quoted if its value is a path: to Hydra `~`, brackets, commas and letters beyond
    ASCII mean something, or are wrong. A list of texts to sweep over stays one.
    """
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    listed = name == "task.path" and "," in value
    if name not in PATHS or not equals or value in ("", "null") or value[0] in "'\"" or listed:
        return override
    escaped = value.replace("'", r"\'")
    return f"{key}='{escaped}'"


def free(overrides: Iterable[str], config_dir: str | None = None) -> list[str]:
    """Let every value be set, known to Hydra or not: `lr=1` becomes `++lr=1`.

    Whether a key exists is for `check` to say, which knows the signatures: the keys of an optimizer
    that the recipe names are not in the composed tree when Hydra looks.
    """
    known = groups(config_dir)
    result, keys = [], set()
    for override in map(as_text, overrides):
        for short, name in SHORT.items():
            if override.startswith(f"{short}="):
                override = override.replace(short, f"hydra/{name}", 1)
            elif override.startswith(f"{short}."):
                override = override.replace(short, f"hydra.{name}", 1)
        key = override.split("=", 1)[0]
        keys.add(key.lstrip("+"))
        is_value = key[:1] not in "+~" and key not in known and not key.startswith("hydra")
        is_value |= key.startswith(tuple(f"hydra.{name}." for name in SHORT.values()))
        result.append(
            f"++{override}" if is_value and "=" in override and "@" not in key else override
        )
    # A run has a number of steps or of epochs: whoever names one means it instead of the other.
    for named, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"trainer.{named}" in keys and f"trainer.{other}" not in keys:
            result.append(f"++trainer.{other}=null")
    return result


def typed(words: Iterable[str]) -> list[str]:
    """What `free` returned, without what it added."""
    plain = (word.lstrip("+") for word in words)
    return [word for word in plain if word not in FOLLOWS]
