"""Recurrent layers over a whole sequence on a CPU, by compiled code of our own.

Torch builds a GRU on a CPU of small operations, a dozen a step and two dozen on the way back,
between which most of the time goes by; its LSTM is a good one, but goes all the way back where no
gradient is left. Here the whole loop over the steps is in `recurrent_cpu.cpp`, which says how. It
is the same function up to rounding.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from seqbench.models.vectors import call, can_run, whole

SOURCE = Path(__file__).with_suffix(".cpp")
# As the source names the kinds of layers.
KINDS: dict[type[nn.Module], str] = {nn.RNN: "Elman", nn.LSTM: "Lstm", nn.GRU: "Gru"}


class Layer(ctypes.Structure):
    """`Layer` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("threads", "time", "batch", "dim", "width")),
        *((name, ctypes.c_void_p) for name in ("w_ih", "w_hh", "b_ih", "b_hh", "rows", "cells")),
        ("cells_time", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("saved", "weights", "sums")),
        *((name, ctypes.c_void_p) for name in ("input_weights", "state_weights", "d_states")),
        *((name, ctypes.c_int64) for name in ("d_states_time", "d_states_row")),
        *((name, ctypes.c_void_p) for name in ("d_state", "d_cell", "d_gates", "d_weights")),
        *((name, ctypes.c_void_p) for name in ("d_x", "first")),
    )


def pays(layer: nn.RNNBase, x: Tensor) -> bool:
    """Whether a layer can be run here, and is not faster by torch.

    Args:
        layer: an `nn.LSTM`, `nn.GRU` or `nn.RNN` of one layer.
        x: `(batch, time, dim)`.
    """
    batch, time, _ = x.shape
    if time < 16:  # packing the weights would take longer than what it saves
        return False
    if isinstance(layer, nn.LSTM):
        # Torch's LSTM is a good one: it is slower only where the weights are read often enough
        # after they were packed, and by enough rows at a time. Measured with one and two threads.
        width = layer.hidden_size
        if batch * time < 3 * width or 40 * batch < width:
            return False
    weights = list(layer.parameters())
    return x.shape[2] == layer.input_size and can_run(SOURCE, x, *weights)


def run(
    layer: nn.RNNBase, x: Tensor, state: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one layer.

    Args:
        layer: an `nn.LSTM`, `nn.GRU` or `nn.RNN` (tanh) of one layer.
        x: `(batch, time, dim)`.
        state: hidden and, for an LSTM, cell state, each `(batch, hidden_size)`; `None`: zeros.

    Returns:
        `(batch, time, hidden_size)`, and the state after the last step.
    """
    if state is None:
        parts = 2 if isinstance(layer, nn.LSTM) else 1
        state = (x.new_zeros(len(x), layer.hidden_size),) * parts
    weights = (getattr(layer, name) for name in layer._flat_weights_names)
    states, *after = Recurrence.apply(
        type(layer), torch.is_grad_enabled(), x.transpose(0, 1), *weights, *state
    )
    return states.transpose(0, 1), tuple(after)


class Recurrence(torch.autograd.Function):
    """A layer of any kind in `KINDS`."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: type[nn.Module],
        trains: bool,
        x: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run the layer.

        Args:
            ctx: of autograd.
            kind: of `KINDS`.
            trains: keep what the way back needs.
            x: `(time, batch, dim)`.
            w_ih: `(gates * hidden, dim)`.
            w_hh: `(gates * hidden, hidden)`.
            b_ih: `(gates * hidden,)`.
            b_hh: `(gates * hidden,)`.
            state: hidden and, for an LSTM, cell state, each `(batch, hidden)`.

        Returns:
            All states, `(time, batch, hidden)`, and the state after the last step.
        """
        ctx.set_materialize_grads(False)
        time, batch, dim = x.shape
        width = w_hh.shape[1]
        full = whole(width, SOURCE, x.dtype)
        rows = x.new_empty(time + 1, batch, dim + 2 + full)
        rows[:time, :, :dim] = x
        rows[:, :, dim : dim + 2] = 1
        rows[0, :, dim + 2 :] = pad(state[0], (0, full - width))
        cells = saved = None
        if kind is nn.LSTM:
            cells = x.new_empty(time + 1 if trains else 1, batch, full)
            cells[0] = pad(state[1], (0, full - width))
        if trains and kind is not nn.RNN:
            saved = x.new_empty(time, batch, 4, full)
        call(
            SOURCE,
            f"{KINDS[kind]}_forward",
            x.dtype,
            Layer,
            time=time,
            batch=batch,
            dim=dim,
            width=width,
            w_ih=w_ih.contiguous(),
            w_hh=w_hh.contiguous(),
            b_ih=b_ih.contiguous(),
            b_hh=b_hh.contiguous(),
            rows=rows,
            cells=cells,
            cells_time=batch * full if trains and cells is not None else 0,
            saved=saved,
            weights=x.new_empty(len(w_hh) // width * full, dim + 2 + width),
            sums=x.new_empty(batch, 8 * whole(1, SOURCE, x.dtype)),
        )
        ctx.kind = kind
        ctx.save_for_backward(rows, w_ih, w_hh, cells, saved)
        states = rows[:, :, dim + 2 : dim + 2 + width]
        after = (states[-1], *(cells[-1:, :, :width] if cells is not None else ()))
        return states[1:], *(part.clone() for part in after)

    @staticmethod
    def backward(ctx: Any, d_states: Tensor | None, *d_after: Tensor | None) -> tuple[Any, ...]:
        """Carry gradients back through the layer.

        Args:
            ctx: of autograd.
            d_states: `(time, batch, hidden)`; `None`: zeros.
            d_after: of the state after the last step, each `(batch, hidden)`; `None`: zeros.
        """
        if d_states is None and all(grad is None for grad in d_after):
            return (None,) * (7 + len(d_after))
        rows, w_ih, w_hh, cells, saved = ctx.saved_tensors
        time, batch, dim = len(rows) - 1, rows.shape[1], w_ih.shape[1]
        width, full = w_hh.shape[1], rows.shape[2] - dim - 2
        gates = len(w_hh) // width
        # The GRU's candidate has one gradient for the input's share and one for the state's. They
        # stand before and after those of the other gates, so that each side's are together.
        apart = int(ctx.kind is nn.GRU)
        # As the source's `gates_size` says, and a vector more.
        lanes = whole(1, SOURCE, rows.dtype)
        row = whole((gates + apart) * width, SOURCE, rows.dtype) // lanes | 1
        d_gates = rows.new_empty((time * batch * row + 1) * lanes)
        d_weights = rows.new_empty(dim + 2 + width, len(w_hh))
        if d_states is not None and d_states.stride(2) != 1:
            d_states = d_states.contiguous()
        d_before = [rows.new_zeros(batch, full) for _ in d_after]
        for mine, given in zip(d_before, d_after, strict=True):
            if given is not None:
                mine[:, :width] = given
        d_x = None
        if ctx.needs_input_grad[2]:
            d_x = rows.new_zeros(time, batch, whole(dim, SOURCE, rows.dtype))
        call(
            SOURCE,
            f"{KINDS[ctx.kind]}_backward",
            rows.dtype,
            Layer,
            time=time,
            batch=batch,
            dim=dim,
            width=width,
            rows=rows,
            cells=cells,
            cells_time=batch * full if cells is not None else 0,
            saved=saved,
            w_ih=w_ih.contiguous(),
            w_hh=w_hh.contiguous(),
            input_weights=None if d_x is None else rows.new_empty(len(w_ih), d_x.shape[2]),
            state_weights=rows.new_empty(len(w_hh), full),
            d_states=d_states,
            d_states_time=0 if d_states is None else d_states.stride(0),
            d_states_row=0 if d_states is None else d_states.stride(1),
            d_state=d_before[0],
            d_cell=(*d_before, None)[1],
            d_gates=d_gates,
            d_weights=d_weights,
            d_x=d_x,
            first=torch.empty(batch, dtype=torch.int64),
        )
        d_ih, d_hh = d_weights.split([dim + 1, width + 1])
        if apart:
            d_ih = d_ih.view(-1, gates, width).roll(-1, 1).flatten(1)
        return (
            None,
            None,
            d_x if d_x is None else d_x[..., :dim],
            d_ih[:-1].t(),
            d_hh[1:].t(),
            d_ih[-1].clone(),  # a view would keep the whole product
            d_hh[0].clone(),
            *(grad[:, :width] for grad in d_before),
        )
