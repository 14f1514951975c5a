"""Trace a graph with torch, write it in the ONNX format, and run it in onnxruntime."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from seqbench.errors import ConfigError, RunError
from seqbench.export.interface import KEY, Port

try:
    import onnx  # noqa: F401
    import onnxruntime
    import onnxscript  # noqa: F401
except ImportError:
    raise ConfigError("an export needs ONNX: pip install 'seqbench[export]'") from None


def to_onnx(
    graph: nn.Module,
    examples: Sequence[Tensor],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    strict: bool = False,
) -> Any:
    """Return a graph as an `onnx.ModelProto`.

    Args:
        graph: takes and returns tensors.
        examples: inputs of the graph, of any batch size.
        inputs: their names and axes.
        outputs: names and axes of the outputs.
        strict: trace with the bytecode of Python, which some custom models need.

    Raises:
        RunError: if the graph cannot be traced or translated.
    """
    sizes = {name: Dim(name, min=1) for name in ("batch", "time")}
    axes = tuple(
        {i: sizes[axis] for i, axis in enumerate(port.axes) if isinstance(axis, str)}
        for port in inputs
    )
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(
                graph, tuple(examples), dynamic_shapes=(axes,), strict=strict
            )
            file = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=[port.name for port in inputs],
                output_names=[port.name for port in outputs],
            )
    except Exception as error:
        raise RunError(f"torch cannot export the model: {in_one_line(error)}") from error
    assert file is not None
    model = file.model_proto
    # Torch notes the lines of Python that each node comes from, with the paths of this machine.
    for part in (*model.functions, model.graph, *model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
    name_axes(model.graph, [*inputs, *outputs])
    return model


def name_axes(graph: Any, ports: Sequence[Port]) -> None:
    """Write the names of axes into a graph, in place of those of torch."""
    found = {value.name: value for value in [*graph.input, *graph.output]}
    for port in ports:
        for size, axis in zip(found[port.name].type.tensor_type.shape.dim, port.axes, strict=True):
            if isinstance(axis, str):
                size.dim_param = axis


def describe(model: Any, about: dict[str, Any]) -> None:
    """Write a description into the metadata of a model, as JSON."""
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(about)


class Session:
    """A model in onnxruntime, on the CPU.

    Args:
        content: of the file.

    Raises:
        RunError: if onnxruntime cannot load the model, or run it.
    """

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        with one_line():
            self.session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]

    def run(self, tensors: Sequence[Tensor | NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs for inputs in the order of the file."""
        inputs = dict(zip(self.names, map(np.asarray, tensors), strict=True))
        with one_line():
            return self.session.run(None, inputs)


def in_one_line(error: Exception) -> str:
    """Return the kind of an error, and the beginning of its text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def one_line() -> Iterator[None]:
    """Raise errors of onnxruntime as a RunError of one line."""
    try:
        yield
    except Exception as error:
        line = in_one_line(error)
        raise RunError(f"the file is not written: onnxruntime cannot run it: {line}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what torch's exporter prints: warnings of its own code, and graphs before an error."""
    disabled, unread = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(unread), redirect_stderr(unread):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
