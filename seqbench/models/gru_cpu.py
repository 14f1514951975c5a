"""A GRU layer over a whole sequence on a CPU, faster than torch's when it is trained.

Torch builds its CPU GRU of small operations, step by step, and so does autograd on the way back:
for each step it multiplies matrices to get a step's share of the weights' gradient, and adds it up.
Here a step of the forward pass is two products and five small operations without new memory; on the
way back it is one product and two or three of them, because

- by how much the gradient of a state reaches each gate is known before the gradient is: the factors
  are products of values from the forward pass, made for many steps at once;
- the gradients of the weights need every step's gates, but no particular moment: they are one
  product at the end, which reads all steps.

It is the same function up to rounding: `tanh(a)` is had as `2 sigmoid(2a) - 1`, which is quicker,
so the candidate's weights are doubled before they are used.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# Steps whose factors are made at once on the way back: few enough to stay in the cache.
CHUNK = 16


class GRUFunction(torch.autograd.Function):
    """`h' = (1 - z) n + z h`, with torch's gates and the order of its weights: r, z, n."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Args:
            ctx: of autograd.
            x: `(time, batch, dim)`.
            h0: `(batch, hidden)`.
            w_ih: `(3 * hidden, dim)`.
            w_hh: `(3 * hidden, hidden)`.
            b_ih: `(3 * hidden,)`.
            b_hh: `(3 * hidden,)`.

        Returns:
            All states, `(time, batch, hidden)`, and the last one.
        """
        ctx.set_materialize_grads(False)
        time, batch, dim = x.shape
        width = w_hh.shape[1]
        doubled = torch.ones_like(b_ih)
        doubled[2 * width :] = 2
        # Of the state's biases only the candidate's must wait for r.
        bias = b_ih.clone()
        bias[: 2 * width] += b_hh[: 2 * width]
        waits = (2 * b_hh[2 * width :]).expand(batch, -1).contiguous()
        # What the input adds to each gate; the gates take its place, step by step.
        gates = torch.addmm(bias * doubled, x.reshape(-1, dim), (w_ih * doubled[:, None]).t())
        gates = gates.view(time, batch, 3 * width)
        to_rz = w_hh[: 2 * width].t().contiguous()
        to_n = (2 * w_hh[2 * width :]).t().contiguous()
        states = x.new_empty(time + 1, batch, width)
        states[0] = h0
        kept = x.new_empty(time, batch, width)  # the state's share of the candidate, times two
        minus_one = x.new_full((1,), -1.0)
        rzs = gates[..., : 2 * width].unbind()
        rs, zs, ns = (part.unbind() for part in gates.split(width, -1))
        hs, keeps = states.unbind(), kept.unbind()
        for t in range(time):
            rzs[t].addmm_(hs[t], to_rz).sigmoid_()
            share = torch.addmm(waits, hs[t], to_n, out=keeps[t])
            n = ns[t].addcmul_(rs[t], share).sigmoid_()
            torch.add(minus_one, n, alpha=2, out=n)
            torch.lerp(n, hs[t], zs[t], out=hs[t + 1])
        ctx.save_for_backward(x, w_ih, w_hh, gates, kept, states)
        return states[1:], states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, d_states: Tensor | None, d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Carry gradients back through the layer.

        Args:
            ctx: of autograd.
            d_states: `(time, batch, hidden)`; `None`: zeros.
            d_last: `(batch, hidden)`; `None`: zeros.
        """
        if d_states is None and d_last is None:
            return (None,) * 6
        x, w_ih, w_hh, gates, kept, states = ctx.saved_tensors  # type: ignore[attr-defined]
        time, batch, width = kept.shape
        # Gradients of what enters the gates: the input's share of n, then r and z, which have both
        # shares alike, then the state's share of n. So each side's three stand together.
        inner = x.new_empty(time, batch, 4, width)
        state_side = inner.view(time, batch, 4 * width)[..., width:].unbind()
        dh = torch.zeros_like(states[0]) if d_last is None else d_last.clone()
        for begin in range((time - 1) // CHUNK * CHUNK, -1, -CHUNK):
            steps = slice(begin, begin + CHUNK)
            fill_factors(inner[steps], gates[steps], kept[steps], states[:-1][steps])
            factors, zs = inner[steps].unbind(), gates[steps, :, width : 2 * width].unbind()
            for t in range(len(factors) - 1, -1, -1):
                if d_states is not None:
                    dh += d_states[begin + t]
                factors[t].mul_(dh[:, None])
                dh.mul_(zs[t]).addmm_(state_side[begin + t], w_hh)
        rows = inner.view(-1, 4 * width)
        sums = rows.sum(0)
        from_input, from_state = rows[:, : 3 * width], rows[:, width:]
        first = width  # rows of n, which stand last among the weights
        # The narrow side first: BLAS is up to six times slower the other way round.
        d_ih = (x.reshape(-1, x.shape[-1]).t() @ from_input).t()
        d_hh = (states[:-1].reshape(-1, width).t() @ from_state).t()
        dx = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            dx = (from_input @ w_ih.roll(first, 0)).view_as(x)
        return (
            dx,
            dh,
            d_ih.roll(-first, 0),
            d_hh,
            sums[: 3 * width].roll(-first),
            sums[width:],
        )


def fill_factors(inner: Tensor, gates: Tensor, kept: Tensor, before: Tensor) -> None:
    """By how much the gradient of the state after a step reaches what enters its gates.

    Args:
        inner: `(time, batch, 4, hidden)`, to be filled.
        gates: r, z and n, `(time, batch, 3 * hidden)`.
        kept: twice the state's share of n, `(time, batch, hidden)`.
        before: states before each step, `(time, batch, hidden)`.
    """
    r, z, n = gates.split(kept.shape[-1], -1)
    new = 1 - z
    at_n = inner[:, :, 0]
    torch.addcmul(new, new * n, n, value=-1, out=at_n)  # (1 - z) (1 - n^2)
    at_share = torch.mul(at_n, r, out=inner[:, :, 3])
    torch.mul(at_share * (1 - r), kept * 0.5, out=inner[:, :, 1])
    torch.mul(before - n, z * new, out=inner[:, :, 2])
