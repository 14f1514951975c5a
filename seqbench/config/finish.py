"""Turn the tree that Hydra composed into the plain config of a run."""

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqbench.config import Config
from seqbench.config.initial import with_initial_weights
from seqbench.config.precedence import with_recipe
from seqbench.errors import ConfigError, first_line
from seqbench.runs.identity import FILES
from seqbench.user_files import expand_home, sha256_of


def finish(composed: DictConfig, choices: dict[str, str]) -> Config:
    """Return the plain config of a run from the tree that Hydra composed.

    Resolves references, replaces `auto` by the recipe's optimizer and schedule, expands `~`, and
    adds the digests of a task's files and of initial weights.

    Args:
        composed: the tree without its `hydra` node.
        choices: the choice of each group.

    Raises:
        ConfigError: if a reference cannot be resolved, an optimizer or schedule is not a node, a
            folder's name is empty, or task or model are not chosen.
    """
    try:
        config: Config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    config = with_recipe(config)
    for key in ("output_dir", "data_dir"):
        if config.get(key) == "":
            raise ConfigError(f"expected {key}=FOLDER, got an empty value")
        if str(config.get(key)).startswith("~"):
            config[key] = str(expand_home(config[key]))
    if isinstance(config.get("task"), dict):
        config["task"] = with_digest(config["task"])
    if not {"task", "model"} <= choices.keys():
        raise ConfigError("no task or no model is chosen: your train.yaml replaces seqbench's")
    config["choices"] = {"task": choices["task"], "model": choices["model"]}
    return with_initial_weights(config)


def with_digest(task: Config) -> Config:
    """Return the node of a task with the absolute path and the digest of each of its files.

    The node is unchanged if it names no file or the file does not exist.
    """
    for key, digest in FILES.items():
        if isinstance(task.get(key), str) and digest in task:
            path = expand_home(task[key]).absolute()
            if path.is_file():
                task = task | {key: str(path), digest: task[digest] or sha256_of(path)}
    return task
