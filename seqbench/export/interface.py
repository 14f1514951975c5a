"""Describe the inputs, outputs and state of an exported model."""

from dataclasses import asdict, dataclass, field
from typing import Any

import seqbench
from seqbench.experiment.saved_run import SavedRun
from seqbench.spec import Classes, Features, Readout, SequenceSpec, Tokens
from seqbench.tasks.sequence_features import SequenceFeatures
from seqbench.tasks.table_features import TableFeatures
from seqbench.wording import plain

# Key of the description, as JSON, in the metadata of the file.
KEY = "seqbench"
READOUTS: dict[Readout, str] = {
    "last": "after the last step",
    "mean": "from the mean over the steps",
    "every": "after each step",
}


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: in the file.
        dtype: `float32`, `float64` or `int64`.
        axes: `batch`, `time`, or a size.
        meaning: one sentence.
        columns: names along the last axis; empty: they have none.
    """

    name: str
    dtype: str
    axes: list[str | int]
    meaning: str
    columns: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return name, dtype and axes, such as `tokens int64 (batch, time)`."""
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.axes))})"


@dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a file, without its state.

    Attributes:
        inputs: in the order of the file.
        output: the answer.
    """

    inputs: list[Port]
    output: Port


def interface_of(
    spec: SequenceSpec, features: TableFeatures | SequenceFeatures | None
) -> Interface:
    """Return the interface of a model for a spec and, if it has some, the features of its run."""
    if isinstance(features, TableFeatures):
        return of_forecasts(features)
    if isinstance(features, SequenceFeatures):
        return of_classes(features, spec)
    each: list[str | int] = ["batch", "time"]
    if isinstance(spec.input, Tokens):
        of_token = f"token ids from 0 to {spec.input.vocab_size - 1}"
        source = Port("tokens", "int64", each, of_token)
    else:
        assert isinstance(spec.input, Features)
        source = Port("features", "float32", [*each, spec.input.dim], "inputs of the task")
    places = each if spec.readout == "every" else ["batch"]
    name = "logits" if isinstance(spec.target, Classes) else "answer"
    answer = Port(name, "float32", [*places, spec.output_dim], f"outputs {READOUTS[spec.readout]}")
    return Interface([source], answer)


def of_classes(features: SequenceFeatures, spec: SequenceSpec) -> Interface:
    """Return the interface of a classifier of sequences: raw values in, probabilities out."""
    missing = "; NaN where missing" if features.masks else ""
    values = Port(
        "values",
        "float64",
        ["batch", "time", len(features.channels)],
        "the channels in their units, of one sequence at its own length, or of several of equal "
        f"length, without padding{missing}",
        features.channels,
    )
    shares = f"probabilities of the classes, {READOUTS[spec.readout]}"
    axes: list[str | int] = ["batch", spec.output_dim]
    return Interface([values], Port("probabilities", "float32", axes, shares, features.classes))


def of_forecasts(features: TableFeatures) -> Interface:
    """Return the interface of a forecasting model: raw values in, values in the same units out."""
    each: list[str | int] = ["batch", "time"]
    missing = "; NaN where missing" if features.masks else ""
    inputs = [
        Port(
            "values",
            "float64",
            [*each, len(features.columns)],
            f"the columns in their units, the latest row last{missing}",
            features.columns,
        )
    ]
    if features.known:
        later = f"the columns known ahead, {features.horizon} rows after each row, in their units"
        axes = [*each, len(features.known)]
        inputs.append(Port("ahead", "float64", axes, later, features.known))
    if features.calendar:
        inputs.append(Port("time", "int64", each, "times of the rows in seconds since 1970-01-01"))
    axes = ["batch", features.horizon, len(features.targets)]
    ahead = "forecast of the next rows in the units of the targets"
    return Interface(inputs, Port("forecast", "float64", axes, ahead, features.targets))


def state_names(like: Any) -> list[str]:
    """Return a name for each tensor of a state of layers."""
    return [f"state_{i}_{j}" for i, layer in enumerate(like) for j in range(len(layer))]


def description(
    saved: SavedRun, interface: Interface, state: dict[str, list[str | int]]
) -> dict[str, Any]:
    """Return what the file says about itself.

    Args:
        saved: the run.
        interface: inputs and outputs as they are in the file.
        state: name -> axes of each tensor of the state.
    """
    choices = saved.config["choices"]
    kept = dict(saved.preprocessing or {})
    if "vocabulary" in kept:
        kept["vocabulary"] = "".join(map(chr, kept["vocabulary"]))
    if "time_step" in kept:
        kept["time_step_us"] = kept.pop("time_step")
    return {
        "version": seqbench.__version__,
        "run": plain(saved.run.run_id),
        "task": plain(str(choices["task"])),
        "model": plain(str(choices["model"])),
        "seed": saved.config["seed"],
        "step": saved.step,
        "length": saved.spec.length,
        "inputs": [asdict(port) for port in interface.inputs],
        "outputs": [asdict(interface.output)],
        "state": [
            {"input": name, "output": f"next_{name}", "axes": axes, "first": 0}
            for name, axes in state.items()
        ],
        "preprocessing": kept,
    }
