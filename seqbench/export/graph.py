"""Define the module that is exported: a model, from raw values to answers in their unit."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations

from seqbench.errors import ConfigError
from seqbench.experiment.saved_run import SavedRun
from seqbench.export.calendar import calendar_of
from seqbench.export.interface import Interface
from seqbench.export.recurrent_layer import RecurrentLayer, replace_layers
from seqbench.models import plain, tcn
from seqbench.models.sequence_model import SequenceModel, State
from seqbench.tasks.sequence_features import SequenceFeatures
from seqbench.tasks.table_features import TableFeatures
from seqbench.tasks.window_batch import ForecastBatch


class Graph(nn.Module):
    """A model with named inputs, outputs and state.

    Args:
        model: the model; see `exportable`.
        interface: its inputs, outputs and state.
        features: of a run that forecasts, or classifies sequences; `None`: another task.
        zeros: the state before the first step, if it is an input.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: SequenceModel,
        interface: Interface,
        features: TableFeatures | SequenceFeatures | None,
        zeros: State = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.interface = interface
        self.features = features
        self.zeros = zeros
        if features is not None:
            self.register_buffer("mean", torch.from_numpy(features.mean))
            self.register_buffer("std", torch.from_numpy(features.std))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the answer and the state after the last step.

        Args:
            tensors: the inputs and the state before the first step, as `interface` has them.
        """
        names = [port.name for port in self.interface.inputs]
        inputs, leaves = dict(zip(names, tensors, strict=False)), tensors[len(names) :]
        state = unflattened(leaves, self.zeros) if leaves else None
        if isinstance(self.features, TableFeatures):
            answer, state = self.forecast(self.features, inputs, state)
        elif self.features is not None:
            features = torch.cat(self.scaled(inputs["values"]), 2)
            logits, state = self.model(features, state)
            answer = logits.float().softmax(-1)
        else:
            answer, state = self.model(tensors[0], state)
        return (answer, *(leaves_of(state) if leaves else ()))

    def forecast(
        self, features: TableFeatures, inputs: dict[str, Tensor], state: State
    ) -> tuple[Tensor, State]:
        """Return forecasts `(batch, horizon, targets)` in their unit, and the state.

        The features of a row are those of `TableFeatures.model_inputs`.
        """
        values = inputs["values"]
        parts = self.scaled(values)
        if features.known:
            places = [features.columns.index(name) for name in features.known]
            ahead = (inputs["ahead"] - self.mean[places]) / self.std[places]
            parts.append(ahead.nan_to_num().float())
        if features.calendar:
            parts.append(calendar_of(inputs["time"], features.calendar))
        count = len(features.targets)
        unknown = values.new_zeros(values.shape[0], features.horizon, count)
        batch = features.normalized(ForecastBatch(torch.cat(parts, 2), unknown))
        outputs, state = self.model(batch.inputs, state)
        answer = batch.answer(outputs).double()
        return answer * self.std[:count] + self.mean[:count], state

    def scaled(self, values: Tensor) -> list[Tensor]:
        """Return raw values scaled, 0 where missing, and the indicators of missing values."""
        assert self.features is not None
        scaled = (values - self.mean) / self.std
        parts = [scaled.nan_to_num().float()]
        return [*parts, scaled.isnan().float()] if self.features.masks else parts


def leaves_of(state: State) -> list[Tensor]:
    """Return the tensors of a state of layers."""
    return [part for layer in state for part in layer]


def unflattened(leaves: Sequence[Tensor], like: State) -> State:
    """Return tensors as a state of layers, which has as many in each layer as `like`."""
    left = iter(leaves)
    return tuple(tuple(next(left) for _ in layer) for layer in like)


def exportable(saved: SavedRun) -> SequenceModel:
    """Return a copy of a run's model that `torch.onnx.export` can trace.

    A model of seqbench takes its plain form; any other stays as it is.
    """
    node: dict[str, Any] = saved.config["model"]
    if node["_target_"] not in plain.PLAIN:
        return copy.deepcopy(saved.model).cpu()
    model = plain.build_plain(node, saved.spec)
    model.load_state_dict(saved.model.state_dict())
    model.eval().requires_grad_(False)
    if isinstance(model, plain.Recurrent):
        replace_layers(model)
    if isinstance(model, tcn.TCN):
        for module in [m for m in model.modules() if isinstance(m, nn.Conv1d)]:
            if hasattr(module, "parametrizations"):
                remove_parametrizations(module, "weight")
    return model


def zero_state(model: SequenceModel, name: str, batch: int) -> State:
    """Return the state of a model before the first step.

    Args:
        model: as `exportable` returns it.
        name: of the model, for the error.
        batch: sequences.

    Raises:
        ConfigError: if the model has no state of a fixed size.
    """
    if isinstance(model, plain.Recurrent):
        layers = [layer for layer in model.layers if isinstance(layer, RecurrentLayer)]
        return tuple(layer.zeros(batch) for layer in layers)
    if isinstance(model, plain.TCN):
        state = []
        for i, block in enumerate(model.blocks):
            convs = [conv for conv in block.children() if isinstance(conv, nn.Conv1d)][:2]
            state.append(
                tuple(
                    torch.zeros(batch, conv.in_channels, (conv.kernel_size[0] - 1) * 2**i)
                    for conv in convs
                )
            )
        return tuple(state)
    raise ConfigError(
        f"--stateful needs a state of fixed size, which lstm, gru, rnn and tcn have and {name} has "
        "not: seqbench export RUN without --stateful exports the pass over a whole sequence"
    )
