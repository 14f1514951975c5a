"""Export a run to an ONNX file, after its answers are compared with those of the run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.errors import ConfigError, RunError
from seqbench.experiment import classifying, forecasting
from seqbench.experiment.saved_run import SavedRun
from seqbench.export.graph import Graph, exportable, leaves_of, zero_state
from seqbench.export.interface import Interface, Port, description, interface_of, state_names
from seqbench.export.onnx_file import Session, describe, in_one_line, to_onnx
from seqbench.export.samples import Labelled, LookBacks, Samples, Sequences
from seqbench.models import plain
from seqbench.models.linear import LinearForecast
from seqbench.models.sequence_model import SequenceModel
from seqbench.runs import atomic
from seqbench.spec import Values
from seqbench.tasks.sequence_features import SequenceFeatures
from seqbench.tasks.table_features import TableFeatures

# Largest difference of answers, relative to the largest answer or 1: some hundred roundings.
TOLERANCE = 1e-4
# Sequences that the graph is traced with.
EXAMPLES = 3
# Lengths of the chunks that a file with a state is checked with.
CHUNKS = ((1,), (3, 1, 5), (2**31,))


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        ports: its inputs and outputs, without the state.
        state: tensors of the state.
        difference: largest difference between its answers and those of the run; of forecasts in
            standard deviations of the training rows.
        sizes: batch sizes and lengths that were compared.
        source: of the inputs that were compared.
    """

    ports: list[Port]
    state: int
    difference: float
    sizes: list[tuple[int, int]]
    source: str


def export(saved: SavedRun, path: Path, *, stateful: bool = False) -> Exported:
    """Write the model of a run to an ONNX file that answers as the run does.

    Args:
        saved: the run.
        path: the file, in an existing folder. It is replaced.
        stateful: the file reads a chunk of a sequence, with the state before as input and the
            state after as output.

    Raises:
        ConfigError: if the model has no state of a fixed size, or a package is missing.
        RunError: if the model cannot be exported, or the file answers otherwise than the run.
    """
    saved.model.cpu()
    features = features_of(saved)
    samples = samples_of(saved, features)
    model, interface = exportable(saved), interface_of(saved.spec, features)
    zeros = None
    if stateful:
        check_chunks(saved, features)
        zeros = zero_state(model, str(saved.config["choices"]["model"]), EXAMPLES)
    graph = Graph(model, interface, features, zeros)
    ways = ways_to_trace(saved, model, interface)
    for chosen, strict in ways:
        graph.interface = chosen
        try:
            content = content_of(saved, graph, samples, strict=strict)
            difference, sizes = compare(samples, content, graph, saved.spec.length)
            break
        except RunError:
            if (chosen, strict) == ways[-1]:
                raise
    atomic.write(path, content)
    ports = [*graph.interface.inputs, graph.interface.output]
    return Exported(ports, len(leaves_of(zeros or ())), difference, sizes, samples.source)


def features_of(saved: SavedRun) -> TableFeatures | SequenceFeatures | None:
    """Return the features of a run that forecasts, or classifies sequences; else `None`."""
    target = saved.spec.target
    if isinstance(target, Values) and target.steps is not None:
        return forecasting.features_of(saved)
    found = classifying.features_of(saved) if classifying.is_classifier(saved) else None
    return found if isinstance(found, SequenceFeatures) else None


def samples_of(saved: SavedRun, features: TableFeatures | SequenceFeatures | None) -> Samples:
    """Return inputs to compare the file with the run on."""
    if isinstance(features, TableFeatures):
        return LookBacks(saved, features)
    return Sequences(saved) if features is None else Labelled(saved, features)


def check_chunks(saved: SavedRun, features: TableFeatures | SequenceFeatures | None) -> None:
    """Raise ConfigError if an answer needs more than a chunk of the sequence and the state."""
    if isinstance(features, TableFeatures) and features.normalize != "none":
        raise ConfigError(
            f"--stateful: the run has task.normalize={features.normalize}, which needs the "
            "whole look-back before the first step: export it without --stateful, or train "
            "with task.normalize=none"
        )
    if saved.spec.readout == "mean":
        raise ConfigError(
            "--stateful: the run has task.pool=mean, and the answer to a chunk would be from the "
            "mean over its steps alone: export it without --stateful, or train with task.pool=last"
        )


def ways_to_trace(
    saved: SavedRun, model: SequenceModel, interface: Interface
) -> list[tuple[Interface, bool]]:
    """Return interfaces, and if they are traced strictly, in the order to try.

    Models of seqbench read any number of time steps, except the linear ones and those with learned
    positions. Of a custom model it
    is not known, and neither if its code takes the batch size as a constant, as `len(x)` does.
    """
    length = saved.spec.length
    fixed = replace(interface, inputs=[of_length(port, length) for port in interface.inputs])
    if isinstance(model, LinearForecast):
        return [(fixed, False)]
    if saved.config["model"].get("positions") == "learned":
        return [(fixed, False)]
    if saved.config["model"]["_target_"] in plain.PLAIN:
        return [(interface, False)]
    return [(interface, False), (interface, True), (fixed, True)]


def of_length(port: Port, length: int) -> Port:
    """Return an input or output with a fixed number of time steps."""
    return replace(port, axes=[length if axis == "time" else axis for axis in port.axes])


def content_of(saved: SavedRun, graph: Graph, samples: Samples, *, strict: bool) -> bytes:
    """Return the content of a file, with its description."""
    interface, leaves = graph.interface, leaves_of(graph.zeros or ())
    state = {
        name: Port(name, "float32", ["batch", *leaf.shape[1:]], "state")
        for name, leaf in zip(state_names(graph.zeros or ()), leaves, strict=True)
    }
    after = [replace(port, name=f"next_{name}") for name, port in state.items()]
    batch = len(leaves[0]) if leaves else EXAMPLES
    # Torch takes a size of 1 as a constant.
    least = 2 if "time" in interface.inputs[0].axes else 1
    model = to_onnx(
        graph,
        [*samples.inputs(batch, max(least, saved.spec.length)), *leaves],
        [*interface.inputs, *state.values()],
        [interface.output, *after],
        strict=strict,
    )
    describe(model, description(saved, interface, {k: port.axes for k, port in state.items()}))
    content: bytes = model.SerializeToString()
    return content


def compare(
    samples: Samples, content: bytes, graph: Graph, length: int
) -> tuple[float, list[tuple[int, int]]]:
    """Return the largest difference to the answers of the run, and the sizes that were compared.

    Args:
        samples: inputs and answers of the run.
        content: of the file.
        graph: what was exported.
        length: time steps in training.

    Raises:
        RunError: if the difference is larger than `TOLERANCE`, or the file or the run's own model
            fails on a size.
    """
    session, largest = Session(content), 0.0
    sizes = [(EXAMPLES, length), (1, length)]
    if "time" in graph.interface.inputs[0].axes:
        sizes += [(2, 1), (1, length // 2 + 1), (2, length + 3)]
    for batch, time in sizes:
        try:
            expected = samples.answer(batch, time)
        except Exception as error:
            raise RunError(
                f"the file is not written: the run's own model fails on {batch} x {time} steps: "
                f"{in_one_line(error)}"
            ) from error
        inputs = samples.inputs(batch, time)
        scale = max(1.0, (expected / samples.unit).abs().max().item())
        for chunks in CHUNKS if graph.zeros is not None else (None,):
            found = answer_of(session, inputs, graph, chunks)
            off = (torch.from_numpy(found) - expected) / samples.unit
            difference = off.abs().max().item()
            if not difference <= TOLERANCE * scale:
                raise RunError(
                    f"the file is not written: its answers to {batch} x {time} steps of "
                    f"{samples.source} differ from those of the run by {difference:.2g}, expected "
                    f"at most {TOLERANCE * scale:.2g}"
                )
            largest = max(largest, difference)
    return largest, sizes


def answer_of(
    session: Session, inputs: list[Tensor], graph: Graph, chunks: Sequence[int] | None
) -> NDArray[Any]:
    """Return the answer of a file to whole sequences.

    Args:
        session: the file.
        inputs: `(batch, time, ...)`.
        graph: what was exported.
        chunks: of a file with a state: lengths of the chunks, repeated until the end.
    """
    if chunks is None:
        return session.run(inputs)[0]
    batch, time = inputs[0].shape[:2]
    state: list[Any] = [leaf[:1].expand(batch, *leaf.shape[1:]) for leaf in leaves_of(graph.zeros)]
    answers, first = [], 0
    for size in cycle(chunks):
        part = slice(first, first + size)
        answer, *state = session.run([*(x[:, part] for x in inputs), *state])
        answers.append(answer)
        first += size
        if first >= time:
            break
    every = "time" in graph.interface.output.axes
    return np.concatenate(answers, 1) if every else answers[-1]
