"""Compose the configs of runs that make the model of a completed run smaller."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from seqbench.config import Config
from seqbench.config.compose import Composer
from seqbench.config.compression import CHANGEABLE, QUANTIZED, SHARES, check_share
from seqbench.config.initial import weights_file
from seqbench.config.moved import DATA_KEYS, with_data_at
from seqbench.config.schema import import_target
from seqbench.config.trust import read
from seqbench.errors import ConfigError
from seqbench.runs.find import find_run
from seqbench.runs.identity import run_id
from seqbench.runs.run import Run
from seqbench.runs.weights_file import read_facts
from seqbench.spec import SequenceSpec
from seqbench.user_files import sha256_of
from seqbench.wording import plain, suggestion

# Single settings that may differ from those of the parent.
SINGLE = ("device", "threads")
# Settings that only say how many steps are trained: `--finetune` does.
DURATION = ("trainer.steps", "trainer.epochs")
# Keys of a run that starts from other weights.
ORIGIN = ("init_from", "init_sha256", "init_run", "init_freeze", "init_lr_scale", "continues")
Node = dict[str, Any]


def compressed_configs(
    run: str,
    prune: Sequence[str],
    scope: str | None,
    quantize: Sequence[str],
    steps: int,
    overrides: Sequence[str],
    output_dir: Path,
    trust: Sequence[str] = (),
) -> list[Config]:
    """Return the config of each compressed run: every pruning with every way to store weights.

    Args:
        run: the parent, as for `find_run`.
        prune: `weights=SHARE,...` or `units=SHARE,...`.
        scope: of pruned weights, one of `SCOPES`; `None`: all matrices together.
        quantize: names of `QUANTIZED`, separated by commas.
        steps: of fine-tuning; 0: none.
        overrides: settings of the fine-tuning, and where the data are now.
        output_dir: where runs are.
        trust: packages that the parent may import besides seqbench.

    Raises:
        ConfigError: if there is no such run, it has not completed, or an argument is wrong.
        DataError: if an override names a file that cannot be read.
    """
    nodes = combined(prunings(prune, scope), storages(quantize))
    if steps < 0:
        raise ConfigError(f"--finetune takes a number of steps, not {steps}")
    parent = Run(find_run(run, output_dir).resolve())
    places = [word for word in overrides if key_of(word) in DATA_KEYS]
    settings = [word for word in overrides if word not in places]
    for word in settings:
        check_setting(word)
        if not steps and key_of(word).startswith(CHANGEABLE):
            raise ConfigError(f"{plain(word)} changes fine-tuning: add --finetune STEPS")
    config = with_data_at(read(parent.config_path, trust), places)
    path, _ = weights_file(str(parent.folder), output_dir)
    record = parent.record
    if record is None or record.status != "completed":
        how = "has not ended" if record is None else record.status
        raise ConfigError(f"run {parent.run_id} {how}: only a completed run can be compressed")
    base = {k: v for k, v in config.items() if k not in (*ORIGIN, "compress")}
    base |= {"init_from": str(path), "init_sha256": sha256_of(path), "init_run": parent.run_id}
    # Fine-tuning takes its steps, also where the parent has solved the task.
    base["trainer"] |= {"steps": steps, "epochs": None}
    if base["trainer"].get("stop_when_solved"):
        base["trainer"] |= {"stop_when_solved": False}
    base["output_dir"] = str(parent.output_dir or output_dir)
    composer = Composer()
    configs = [
        composer.changed(base | {"compress": node, "model": model_of(base, path, node)}, settings)
        for node in nodes
    ]
    return list({run_id(config): config for config in configs}.values())


def key_of(word: str) -> str:
    """Return the key of an override."""
    return word.partition("=")[0].lstrip("+~")


def check_setting(word: str) -> None:
    """Raise `ConfigError` if an override is not one of the fine-tuning."""
    key = key_of(word)
    if key in DURATION:
        raise ConfigError(f"compress takes --finetune STEPS, not {plain(word)}")
    if key not in SINGLE and not key.startswith(CHANGEABLE):
        known = ["optimizer.lr", "trainer.eval_every", *SINGLE, *DATA_KEYS]
        raise ConfigError(
            f"compress changes {', '.join(f'{group}KEY' for group in CHANGEABLE)} and "
            f"{', '.join(SINGLE)} only, not {plain(key)}{suggestion(key, known)}"
        )


def prunings(prune: Sequence[str], scope: str | None) -> list[Node]:
    """Return a part of the node `compress` for each share of `--prune`.

    Raises:
        ConfigError: if a word is malformed.
    """
    found: list[Node] = []
    for word in prune:
        kind, equals, shares = word.partition("=")
        if kind not in SHARES or not equals:
            raise ConfigError(
                f"--prune takes weights=SHARE or units=SHARE, such as weights=0.5,0.8, "
                f"not '{plain(word)}'"
            )
        for text in shares.split(","):
            try:
                share = float(text)
            except ValueError:
                raise ConfigError(
                    f"--prune {kind}: expected a fraction such as 0.5, got '{plain(text)}'"
                ) from None
            check_share(f"--prune {kind}", share)
            found.append({kind: share})
    weights = [node for node in found if "weights" in node]
    if scope is not None and not weights:
        raise ConfigError("--scope is for --prune weights=SHARE")
    if scope == "layer":
        for node in weights:
            node["scope"] = scope
    return found


def storages(quantize: Sequence[str]) -> list[Node]:
    """Return a part of the node `compress` for each kind of `--quantize`.

    Raises:
        ConfigError: if there is no such kind.
    """
    kinds = [kind.strip() for word in quantize for kind in word.split(",")]
    for kind in kinds:
        if kind == "int8-dynamic":
            raise ConfigError(
                "--quantize int8-dynamic is not offered, since it is slower than seqbench's layers "
                "on a CPU (see docs/smaller_models.md): int8-weights makes as small a file"
            )
        if kind not in QUANTIZED:
            raise ConfigError(f"--quantize knows no '{plain(kind)}'{suggestion(kind, QUANTIZED)}")
    return [{"quantize": kind} for kind in kinds]


def combined(prunings: Sequence[Node], storages: Sequence[Node]) -> list[Node]:
    """Return each pruning with each way to store the weights.

    Raises:
        ConfigError: if both are empty.
    """
    if not prunings and not storages:
        raise ConfigError(
            "compress needs --prune weights=0.8, --prune units=0.25 or --quantize int8-weights"
        )
    return [a | b for a, b in product(prunings or [{}], storages or [{}])]


def model_of(config: Config, path: Path, node: Node) -> Node:
    """Return the node `model` of a compressed run: smaller if units are removed.

    Raises:
        ConfigError: if the model's units cannot be removed.
    """
    model: Node = config["model"]
    if not node.get("units"):
        return model
    target = import_target(model["_target_"], "model")
    if not hasattr(target, "with_fewer_units"):
        raise ConfigError(
            f"--prune units: {model['_target_']} does not say which of its units can be removed "
            "(SequenceModel.with_fewer_units); --prune weights works for every model"
        )
    smaller: Node = target.with_fewer_units(spec_of(path), dict(model), node["units"])
    return smaller


def spec_of(path: Path) -> SequenceSpec:
    """Return the spec in a file of weights.

    Raises:
        ConfigError: if the file has no spec.
    """
    try:
        return SequenceSpec.from_json(read_facts(path)["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} does not say what its model reads: {error}") from error
