"""Start a model from the weights of another run, or of any safetensors file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from seqbench.config import Config
from seqbench.config.compression import method
from seqbench.errors import ConfigError, DataError, RunError
from seqbench.experiment.compression import Pruned, pruned
from seqbench.models.sequence_model import SequenceModel
from seqbench.runs.weights_file import not_weights, read_facts
from seqbench.tasks.tokenization import KINDS
from seqbench.training.state import weights
from seqbench.training.stored import unpacked
from seqbench.user_files import check_digest

# Preprocessing that says what a number stands for.
MEANINGS = {*KINDS, "classes"}
# Names of parameters that a message lists.
LISTED = 6


@dataclass(frozen=True)
class Initial:
    """The weights that a model started from.

    Attributes:
        source: the file.
        loaded: name -> tensor of the model that was loaded.
        fresh: names of the model's other tensors, which keep their random start.
        unused: names of the file's other tensors.
        size: number of values of the model.
        lr_scale: factor of the learning rate of loaded parameters.
        kept: see `compression.Pruned`.
        method: how the weights were made smaller; `None`: they were not.
    """

    source: Path
    loaded: Mapping[str, Tensor]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    size: int
    lr_scale: float
    kept: Mapping[str, Tensor]
    method: str | None

    def lines(self) -> list[str]:
        """Return two lines that say what was loaded, and what was not."""
        number = sum(tensor.numel() for tensor in self.loaded.values())
        frozen = sum(not tensor.requires_grad for tensor in self.loaded.values())
        still = f", {frozen} of them frozen" if frozen else ""
        first = f"loaded {number:,} values in {len(self.loaded)} tensors{still}: {self.source}"
        if self.method is not None:
            return [first, f"compressed: {self.method}"]
        others = [f"new: {listed(self.fresh)}"] if self.fresh else []
        others += [f"unused: {listed(self.unused)}"] if self.unused else []
        lines = [first, "; ".join(others) or "nothing is new or unused"]
        if 2 * number < self.size:
            lines.append(f"warning: most of the {self.size:,} values of the model start at random")
        return lines

    def apart(self, groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return parameter groups of an optimizer with loaded parameters in groups of their own."""
        if self.lr_scale == 1:
            return list(groups)
        halves = []
        for group in groups:
            for is_loaded in (True, False):  # the last group's rate is logged
                kept = [p for p in group["params"] if self._has(p) is is_loaded]
                halves += [{**group, "params": kept}] if kept else []
        return halves

    def scale_rates(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale the learning rate of the groups of loaded parameters."""
        for group in optimizer.param_groups:
            if self._has(group["params"][0]):
                group["lr"] *= self.lr_scale

    def _has(self, parameter: Tensor) -> bool:
        return any(parameter is tensor for tensor in self.loaded.values())


def load_initial(
    model: SequenceModel, config: Config, preprocessing: Mapping[str, Any]
) -> Initial | None:
    """Load the weights of `init_from` into a model, as far as name and shape fit, and freeze some.

    With `compress` they are pruned first, and then must fit as a whole.

    Args:
        model: with its random start; it is changed.
        config: as `compose` returns it.
        preprocessing: of the task.

    Returns:
        `None` if the config has no `init_from`.

    Raises:
        ConfigError: if the file has changed, is not a safetensors file, has no tensor that fits or
            was trained on other tokens or classes, or `init_freeze` names nothing that was loaded.
        DataError: if the file is not there.
    """
    if "init_from" not in config:
        return None
    path = Path(config["init_from"])
    if not path.is_file():
        raise DataError(f"init_from: {path} is not there; it must stay until the run is over")
    check_digest(str(path), config["init_sha256"], "init_from")
    given, kept = read_tensors(path)
    check_meanings(kept, preprocessing)
    compression = Pruned(given)
    if "compress" in config:
        compression = pruned(model, given, config["compress"])
        given = compression.tensors
    own = {name.removeprefix("model."): tensor for name, tensor in weights(model).items()}
    loaded = {name: t for name, t in own.items() if name in given and fits(given[name], t)}
    if not loaded:
        shapes = {name: tuple(t.shape) for name, t in given.items()}
        raise ConfigError(
            f"init_from={path}: no tensor fits the model in name and shape; the file has "
            f"{listed([f'{name} {shape}' for name, shape in shapes.items()]) or 'none'}; the model "
            f"has {listed([f'{name} {tuple(t.shape)}' for name, t in own.items()])}"
        )
    if "compress" in config and (
        others := own.keys() ^ loaded.keys() | given.keys() ^ loaded.keys()
    ):
        raise ConfigError(
            f"init_from={path}: to be compressed, its weights must be those of this model; "
            f"{listed(sorted(others))} differ"
        )
    with torch.no_grad():
        for name, tensor in loaded.items():
            tensor.copy_(given[name])
    freeze(loaded, config.get("init_freeze", []))
    return Initial(
        source=path,
        loaded=loaded,
        fresh=tuple(name for name in own if name not in loaded),
        unused=tuple(name for name in given if name not in loaded),
        size=sum(tensor.numel() for tensor in own.values()),
        lr_scale=config.get("init_lr_scale", 1.0),
        kept=compression.kept,
        method=method(config),
    )


def read_tensors(path: Path) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file, and the preprocessing that seqbench keeps in it.

    Raises:
        ConfigError: if the file is damaged or of another kind.
    """
    facts = read_facts(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        if not facts:
            return tensors, {}
        # Names in seqbench's checkpoints begin with `model.`.
        named = {name.removeprefix("model."): t for name, t in unpacked(tensors).items()}
        return named, facts["preprocessing"]
    except (OSError, RunError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise not_weights(path, error) from error


def check_meanings(kept: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if tokens or classes with the same numbers mean something else."""
    here = json.loads(json.dumps(here))
    for key in MEANINGS & kept.keys() & here.keys():
        if kept[key] != here[key]:
            raise ConfigError(
                f"init_from: its {key} differs from that of this task, so that the same numbers "
                "mean something else"
            )


def fits(given: Tensor, own: Tensor) -> bool:
    """Return True if a tensor can be loaded into another: same shape, both floating or both not."""
    return given.shape == own.shape and given.is_floating_point() == own.is_floating_point()


def freeze(loaded: Mapping[str, Tensor], prefixes: Sequence[str]) -> None:
    """Exclude loaded parameters from training.

    Args:
        loaded: name -> loaded tensor of the model.
        prefixes: names of parameters or of modules, such as `blocks.0`.

    Raises:
        ConfigError: if a name fits no loaded parameter.
    """
    parameters = {name: p for name, p in loaded.items() if isinstance(p, nn.Parameter)}
    for prefix in prefixes:
        named = [name for name in parameters if name == prefix or name.startswith(f"{prefix}.")]
        if not named:
            modules = dict.fromkeys(name.partition(".")[0] for name in parameters)
            raise ConfigError(
                f"init_freeze: no loaded parameter is named '{prefix}'; "
                f"there are {listed(list(modules))}"
            )
        for name in named:
            parameters[name].requires_grad_(False)


def listed(names: Sequence[str]) -> str:
    """Return the first names as a text, and the number of the others."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
