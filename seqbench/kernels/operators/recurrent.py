"""Define `torch.ops.seqbench.recurrent`: an LSTM, GRU or tanh RNN layer, time first.

Its kernels are in csrc/recurrent.cpp.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench.kernels import reference
from seqbench.kernels.build import library, padded
from seqbench.kernels.operators.transforms import differentiable_gradients, one_by_one
from seqbench.kernels.torch_private import custom_op


@custom_op("recurrent")
def recurrent(
    kind: str,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run a layer on `x` `(time, batch, dim)` from its initial state.

    Returns:
        The output `(time, batch, hidden)`, the last hidden and cell state, and if `save` the cell
        states and gate activations of all steps, for backward. Tensors that a kind lacks are empty.
    """
    output, _, c_n, cells, gates = fields = empty_outputs(x, h0, kind, save)
    if kind == "lstm" and not save:
        cells = c_n  # the kernel keeps only the last step's
    library("recurrent", x.dtype).call(
        f"{kind}_forward",
        "Recurrent",
        **sizes(x, h0),
        x=x.contiguous(),
        w_ih=w_ih.contiguous(),
        w_hh=w_hh.contiguous(),
        b_ih=b_ih.contiguous(),
        b_hh=b_hh.contiguous(),
        h0=h0.contiguous(),
        c0=None if c0 is None else c0.contiguous(),
        output=output,
        cells=cells if kind == "lstm" else None,
        cells_step=h0.numel() if save else 0,
        gates=gates if gates.numel() else None,
    )
    fields[1].copy_(output[-1])
    if kind == "lstm" and save:
        c_n.copy_(cells[-1])
    return fields


def empty_outputs(
    x: Tensor, h0: Tensor, kind: str, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return uninitialized outputs; those that a kind lacks are empty."""
    (time, batch, _), hidden = x.shape, h0.shape[1]
    lstm, gated = kind == "lstm", kind != "rnn_tanh"
    return (
        x.new_empty(time, batch, hidden),
        x.new_empty(batch, hidden),
        x.new_empty(batch if lstm else 0, hidden),
        x.new_empty(time if lstm and save else 0, batch, hidden),
        x.new_empty(time if gated and save else 0, batch, 4 * padded("recurrent", hidden, x.dtype)),
    )


def sizes(x: Tensor, h0: Tensor) -> dict[str, int]:
    """Return the sizes among the kernel's arguments."""
    time, batch, dim = x.shape
    return {"time": time, "batch": batch, "dim": dim, "width": h0.shape[1]}


@recurrent.register_fake
def _(kind: str, x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, h0, _, save = others
    return empty_outputs(x, h0, kind, save)


@custom_op("recurrent_backward")
def recurrent_backward(
    kind: str,
    d_output: Tensor | None,
    d_h: Tensor | None,
    d_c: Tensor | None,
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    output: Tensor,
    cells: Tensor,
    gates: Tensor,
    x_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of `x`, the four weights, and the initial hidden and cell state.

    The gradient of `x` is empty unless `x_wanted`, that of the cell state without `c0`.
    """
    d_x, d_w_ih, d_w_hh, d_b_ih, d_b_hh, d_h0, d_c0 = fields = empty_gradients(
        x, w_ih, w_hh, h0, c0, x_wanted
    )
    d_h0.copy_(d_h) if d_h is not None else d_h0.zero_()
    d_c0.copy_(d_c) if d_c is not None else d_c0.zero_()
    if d_output is not None and d_output.stride(2) != 1:
        d_output = d_output.contiguous()
    library("recurrent", x.dtype).call(
        f"{kind}_backward",
        "Recurrent",
        **sizes(x, h0),
        x=x.contiguous(),
        w_ih=w_ih.contiguous(),
        w_hh=w_hh.contiguous(),
        h0=h0.contiguous(),
        c0=None if c0 is None else c0.contiguous(),
        output=output,
        cells=None if c0 is None else cells,
        cells_step=h0.numel(),
        gates=gates,
        d_output=d_output,
        d_output_step=0 if d_output is None else d_output.stride(0),
        d_output_row=0 if d_output is None else d_output.stride(1),
        d_h=d_h0,
        d_c=None if c0 is None else d_c0,
        d_x=d_x if x_wanted else None,
        d_w_ih=d_w_ih,
        d_w_hh=d_w_hh,
        d_b_ih=d_b_ih,
        d_b_hh=d_b_hh,
    )
    return fields


def empty_gradients(
    x: Tensor, w_ih: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor | None, x_wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return uninitialized gradients, in the order of the inputs."""
    return (
        x.new_empty(x.shape if x_wanted else 0),
        w_ih.new_empty(w_ih.shape),
        w_hh.new_empty(w_hh.shape),
        w_ih.new_empty(len(w_ih)),
        w_ih.new_empty(len(w_ih)),
        h0.new_empty(h0.shape),
        h0.new_empty(0 if c0 is None else c0.shape),
    )


@recurrent_backward.register_fake
def _(kind: str, d_output: Any, d_h: Any, d_c: Any, *others: Any) -> tuple[Tensor, ...]:
    x, w_ih, w_hh, h0, c0, *_, x_wanted = others
    return empty_gradients(x, w_ih, w_hh, h0, c0, x_wanted)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save tensors for backward."""
    ctx.kind, *tensors, _ = inputs
    states, _, _, cells, gates = output
    ctx.save_for_backward(*tensors, states, cells, gates)
    ctx.mark_non_differentiable(cells, gates)
    ctx.set_materialize_grads(False)


def backward(
    ctx: Any, d_output: Tensor | None, d_h: Tensor | None, d_c: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs."""
    *inputs, output, cells, gates = ctx.saved_tensors
    x, w_ih, w_hh, _, _, h0, c0 = inputs
    d_outputs = (d_output, d_h, d_c if c0 is not None else None)
    if all(d is None for d in d_outputs):
        return (None,) * 9
    if torch.is_grad_enabled():

        def function(x: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
            weights, state = others[:4], tuple(s for s in others[4:] if s is not None)
            output, after = reference.recurrent(ctx.kind, x.transpose(0, 1), weights, state)  # type: ignore[arg-type]
            return output.transpose(0, 1), *after, *[None] * (2 - len(after))

        return None, *differentiable_gradients(function, inputs, d_outputs), None
    d_x, *d_weights, d_h0, d_c0 = recurrent_backward(
        ctx.kind, *d_outputs, x, w_ih, w_hh, h0, c0, output, cells, gates, ctx.needs_input_grad[1]
    )
    d_state = (d_h0, None if c0 is None else d_c0)
    return None, d_x if ctx.needs_input_grad[1] else None, *d_weights, *d_state, None


recurrent.register_autograd(backward, setup_context=setup_context)
recurrent.register_vmap(one_by_one(recurrent))
