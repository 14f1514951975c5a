"""Write the command line that trains a run again."""

import re
import shlex
from pathlib import Path
from typing import Any

from seqbench.config.choices import IMPORT_PATH, choices_of, read_choice
from seqbench.config.compression import CHANGEABLE, SHARES, check_compression
from seqbench.config.precedence import FALLBACK, INITIAL, baseline
from seqbench.config.remembered import config_dir_of, is_remembered
from seqbench.errors import ConfigError
from seqbench.results.recipe import Nodes, choices, compare, nodes_of
from seqbench.results.where import MISSING
from seqbench.runs.config_file import read_config
from seqbench.runs.find import OUTPUTS
from seqbench.runs.identity import RUN_ID
from seqbench.runs.run import Run

# Untrusted words that are safe on a command line: names, keys and unquoted values.
NAME = re.compile(r"\w[\w.-]*")
KEY = re.compile(r"[a-z]\w*(\.\w+)*")
BARE = re.compile(r"[A-Za-z/][\w/.-]*")
# Stands for a folder that is not known on this machine.
UNKNOWN = "FOLDER"
NOT_TEXT = ("null", "true", "false", "nan", "inf")


def command(config: dict[str, Any]) -> str:
    """Return the command line that trains the same run.

    Users copy the command, so it never holds text from the record that could run other code.

    Args:
        config: the run's resolved config.

    Raises:
        ConfigError: if no safe command trains this run; the message says why.
    """
    if "compress" in config:
        return _compress_command(config)
    chosen = choices(config)
    for group, name in chosen.items():
        if not NAME.fullmatch(name):
            raise ConfigError(f"'{group}={name}' is no name that a command could choose")
    words = [f"{group}={name}" for group, name in chosen.items()]
    base, nodes = nodes_of(baseline(**chosen)), nodes_of(config)
    for group in FALLBACK:
        target = nodes[group].get("_target_")
        # Keys of the recipe's node cannot be deleted; those of a chosen one can.
        if base[group].get("_target_") != target or not base[group].keys() <= nodes[group].keys():
            name = _choice_of(group, target)
            words.append(f"{group}={name}")
            base[group] = read_choice(group, name)
    words.append(f"seed={_value(config.get('seed', 0))}")
    if "continues" in config:
        words.append(f"continues={_value(config['continues'])}")
    words += [f"{key}={_value(config[key])}" for key in INITIAL if key in config]
    own = [group for group in ("task", "model") if chosen[group] not in choices_of(group)]
    classes = [group for group in own if IMPORT_PATH.fullmatch(chosen[group])]
    for group in classes:
        # The command would build this class: only one that the user has typed before.
        is_same = chosen[group] == nodes[group].get("_target_")
        if not is_same or not is_remembered(config.get(group)):
            raise ConfigError(f"'{group}={chosen[group]}' names code that was not trained here")
    for key, recipe, value in compare(base, nodes):
        node = key.partition(".")[0]
        if key == f"{node}._target_" and node in own:
            continue
        # Hydra cannot delete a null, which is the default of an option that earlier versions lack.
        if value is MISSING and recipe is None:
            continue
        if not KEY.fullmatch(key) or any(part[0] == "_" for part in key.split(".")):
            raise ConfigError(
                f"{key} is {value!r}, and not {recipe!r}: it cannot be given on a command line"
            )
        words.append(f"~{key}" if value is MISSING else f"{key}={_value(value)}")
    named = [group for group in own if group not in classes]
    folder = ["--config-dir", _folder_of(named, chosen, nodes)] if named else []
    return shlex.join(["seqbench", "train", *folder, *words])


def _compress_command(config: dict[str, Any]) -> str:
    """Return the command line that makes a compressed run from its parent; see `command`."""
    check_compression(config)
    node, parent = config["compress"], str(config.get("init_run"))
    compressed = Run.of_weights(Path(str(config.get("init_from"))))
    if not RUN_ID.fullmatch(parent) or compressed.run_id != parent:
        raise ConfigError("the folder of the run that was compressed is not known")
    before = nodes_of(read_config(compressed.config_path))
    words = [f"--prune={key}={_value(node[key])}" for key in SHARES if key in node]
    words += [f"--{key}={node[key]}" for key in ("scope", "quantize") if key in node]
    nodes = nodes_of(config)
    if steps := nodes["trainer"].get("steps"):
        words.append(f"--finetune={_value(steps)}")
    for key, _, value in compare(before, nodes):
        set_by_itself = ("trainer.steps", "trainer.epochs", "trainer.stop_when_solved")
        if key.startswith(CHANGEABLE) and key not in set_by_itself:
            if value is MISSING or not KEY.fullmatch(key):
                raise ConfigError(f"{key} cannot be given on a command line")
            words.append(f"{key}={_value(value)}")
    return shlex.join(["seqbench", "compress", parent[:8], *words])


def _folder_of(groups: list[str], chosen: dict[str, str], nodes: Nodes) -> str:
    """Return the user's folder with custom choices; `UNKNOWN`, to be filled in, if not known."""
    found = {
        config_dir_of(group, chosen[group], str(nodes[group].get("_target_"))) for group in groups
    }
    folder = found.pop()
    return UNKNOWN if found or folder is None else folder


def resume_command(folder: Path) -> str:
    """Return the command line that resumes the run in a folder."""
    named = shlex.quote(str(folder)) if elsewhere(folder) else folder.name[:8]
    return f"seqbench train --resume {named}"


def elsewhere(folder: Path) -> str:
    """Return the ` output_dir=...` that a command needs for a run's folder; empty for `outputs`."""
    outputs = Run(folder).output_dir or folder.parent
    return "" if outputs == OUTPUTS else f" output_dir={shlex.quote(str(outputs))}"


def _choice_of(group: str, target: Any) -> str:
    for name in choices_of(group):
        if read_choice(group, name).get("_target_") == target:
            return name
    raise ConfigError(f"no seqbench config has the {group} {target}")


def _value(value: Any) -> str:
    """Return a value in Hydra's override grammar.

    Raises:
        ConfigError: if the grammar cannot express the value safely.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, str) and value.isprintable() and "${" not in value and value != "???":
        if BARE.fullmatch(value) and value.lower() not in NOT_TEXT:
            return value
        for quote in "'\"":
            if quote not in value and not value.endswith("\\"):
                return f"{quote}{value}{quote}"
    raise ConfigError(f"a command cannot hold the value {value!r}")
