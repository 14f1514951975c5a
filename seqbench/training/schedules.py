"""Define learning-rate schedules: factors by which the initial learning rates are multiplied.

A factor depends only on the step number, so a resumed run needs no state of the schedule. The
exception is `Plateau`, which adapts to the validation score.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from seqbench.errors import ConfigError


class Schedule:
    """The base class of schedules: a constant rate after a linear warm-up.

    Args:
        warmup: share of all steps over which the rate rises from near zero, in [0, 1).

    Raises:
        ConfigError: if `warmup` is outside [0, 1).
    """

    def __init__(self, warmup: float) -> None:
        if not 0 <= warmup < 1:
            raise ConfigError(f"schedule.warmup is a share of all steps in [0, 1), not {warmup}")
        self.warmup = warmup

    def factor(self, step: int, total: int) -> float:
        """Return the factor of step number `step` (from 0) of `total` steps."""
        climb = self.warmup * total
        if step < climb:
            return (step + 1) / (climb + 1)
        return self.after_warmup((step - climb) / (total - climb))

    def after_warmup(self, progress: float) -> float:
        """Return the factor after a share `progress`, in [0, 1), of the steps after the warm-up."""
        return 1.0

    def observe(self, improved: bool) -> None:
        """Adapt to an evaluation; `improved` is True if its score is the best so far."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, JSON-serializable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""


class Constant(Schedule):
    """A constant rate after a linear warm-up."""


class Cosine(Schedule):
    """Cosine decay to a share of the peak rate (Loshchilov and Hutter 2017; LLaMA, section 2.3).

    Args:
        warmup: share of all steps over which the rate rises.
        final: share of the peak rate at the end, in [0, 1].

    Raises:
        ConfigError: if a share is out of range.
    """

    def __init__(self, warmup: float, final: float) -> None:
        super().__init__(warmup)
        if not 0 <= final <= 1:
            raise ConfigError(f"schedule.final is a share of the peak rate, not {final}")
        self.final = final

    def after_warmup(self, progress: float) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class Step(Schedule):
    """A rate that falls by a factor at given points.

    Args:
        warmup: share of all steps over which the rate rises.
        milestones: shares of the steps after the warm-up at which the rate falls.
        gamma: factor of each fall, in (0, 1].

    Raises:
        ConfigError: if `warmup` or `gamma` is out of range.
    """

    def __init__(self, warmup: float, milestones: Sequence[float], gamma: float) -> None:
        super().__init__(warmup)
        if not 0 < gamma <= 1:
            raise ConfigError(f"schedule.gamma must be in (0, 1], not {gamma}")
        self.milestones = milestones
        self.gamma = gamma

    def after_warmup(self, progress: float) -> float:
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)


class Plateau(Schedule):
    """A rate that falls by a factor when the validation score stops improving.

    Args:
        warmup: share of all steps over which the rate rises.
        gamma: factor of each fall, in (0, 1].
        patience: evaluations in a row without a new best score that are tolerated; the next one
            lowers the rate.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(self, warmup: float, gamma: float, patience: int) -> None:
        super().__init__(warmup)
        if not 0 < gamma <= 1 or patience < 0:
            raise ConfigError(
                f"schedule.gamma must be in (0, 1] and schedule.patience at least 0, "
                f"not {gamma} and {patience}"
            )
        self.gamma = gamma
        self.patience = patience
        self.level, self.stalled = 1.0, 0

    def after_warmup(self, progress: float) -> float:
        return self.level

    def observe(self, improved: bool) -> None:
        self.stalled = 0 if improved else self.stalled + 1
        if self.stalled > self.patience:
            self.level, self.stalled = self.level * self.gamma, 0

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "stalled": self.stalled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.level, self.stalled = state["level"], state["stalled"]


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rates to `factor` times the initial ones, in place if they are tensors."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
