"""Complete the config of a run that starts from the weights of another run.

The user types `init_from=RUN`. The config keeps the path of the file of weights, its SHA-256, and
the id of the run that it belongs to. Of these, only the SHA-256 counts for the new run's id.
"""

import inspect
from pathlib import Path

from seqbench.config import Config
from seqbench.config.precedence import INITIAL
from seqbench.config.schema import import_target
from seqbench.errors import ConfigError
from seqbench.runs.find import find_run
from seqbench.runs.run import BEST, Run
from seqbench.runs.weights_file import not_weights, read_facts
from seqbench.user_files import expand_home, sha256_of

# U+FFFD, which stands for characters outside a vocabulary.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def with_initial_weights(config: Config) -> Config:
    """Return a config with the file of `init_from`, its digest and the parent's vocabulary.

    Args:
        config: with the keys of `INITIAL`, or without them.

    Returns:
        The config; without these keys if the run starts from random weights.

    Raises:
        ConfigError: if there is no such run or no such file, or an option lacks `init_from`.
    """
    kept = {key: value for key, value in config.items() if key not in INITIAL}
    chosen = {k: config[k] for k, v in INITIAL.items() if k in config and config[k] != v}
    source = chosen.pop("init_from", None)
    if source is None:
        if chosen:
            raise ConfigError(f"{next(iter(chosen))} needs init_from=RUN")
        return kept
    if not isinstance(source, str):
        raise ConfigError(f"init_from must be a run or a .safetensors file, not {source!r}")
    path, run = weights_file(source, Path(str(config.get("output_dir", "outputs"))))
    try:
        digest = config.get("init_sha256") or sha256_of(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    parent = {} if run is None else {"init_run": run}
    if "init_freeze" in chosen:
        chosen["init_freeze"] = sorted(set(map(str, chosen["init_freeze"])))
    kept |= {"init_from": str(path), "init_sha256": digest, **parent, **chosen}
    if takes_characters(kept["task"]) and (characters := characters_of(path)):
        kept["task"] = kept["task"] | {"characters": characters}
    return kept


def takes_characters(task: Config) -> bool:
    """Return True if a task has a vocabulary of characters, and its node does not set it."""
    target = import_target(str(task.get("_target_")), "task")
    return task.get("characters") is None and "characters" in inspect.signature(target).parameters


def weights_file(source: str, output_dir: Path) -> tuple[Path, str | None]:
    """Return the file that `init_from` names, and the id of its run.

    Args:
        source: a `.safetensors` file, or a run as for `find_run`.
        output_dir: where runs are searched.

    Raises:
        ConfigError: if there is no such file or run, or the run has no weights.
    """
    if not source:
        raise ConfigError("expected init_from=RUN or FILE.safetensors, got an empty value")
    path = expand_home(source)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ConfigError(f"init_from={source}: there is no such file")
        run = Run.of_weights(path)
        is_run = path.name == BEST and run.config_path.is_file()
        return path.absolute(), run.run_id if is_run else None
    run = Run(find_run(source, output_dir).absolute())
    if not run.record_path.is_file():
        raise ConfigError(
            f"init_from={source}: run {run.run_id} has not ended: wait for it, or resume it"
        )
    if not (run.checkpoints / BEST).is_file():
        raise ConfigError(f"init_from={source}: run {run.run_id} has no checkpoints/{BEST}")
    return run.checkpoints / BEST, run.run_id


def characters_of(path: Path) -> str | None:
    """Return the characters that a language model was trained on; `None` for another file.

    Raises:
        ConfigError: if the file cannot be read.
    """
    codes = read_facts(path).get("preprocessing", {}).get("vocabulary")
    try:
        return "".join(map(chr, codes or ())).removeprefix(UNKNOWN) or None
    except (OverflowError, TypeError, ValueError) as error:
        raise not_weights(path, error) from error
