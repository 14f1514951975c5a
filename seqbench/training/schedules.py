"""Learning-rate schedules: a factor for each step, by which the optimizer's rates are multiplied.

They are plain arithmetic on the step number, so that a step costs no scheduler object and a resumed
run needs no scheduler state (`Plateau` excepted, which learns from validation).
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from seqbench.errors import ConfigError


class Schedule:
    """A constant rate after a linear warm-up; the base of the others.

    Args:
        warmup: share of all steps over which the rate climbs from near zero, in [0, 1).

    Raises:
        ConfigError: a share outside of [0, 1).
    """

    def __init__(self, warmup: float) -> None:
        if not 0 <= warmup < 1:
            raise ConfigError(f"schedule.warmup is a share of all steps in [0, 1), not {warmup}")
        self.warmup = warmup

    def factor(self, step: int, total: int) -> float:
        """The factor of step `step` (from 0) of `total`."""
        climb = self.warmup * total
        if step < climb:
            return (step + 1) / (climb + 1)
        return self.after_warmup((step - climb) / (total - climb))

    def after_warmup(self, progress: float) -> float:
        """The factor when `progress`, in [0, 1), of the steps after the warm-up are done."""
        return 1.0

    def observe(self, improved: bool) -> None:
        """Learn whether validation was better than ever before."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""


class Constant(Schedule):
    """A constant rate, after a warm-up if asked for."""


class Cosine(Schedule):
    """Cosine decay to a share of the peak rate (Loshchilov and Hutter 2017; LLaMA, section 2.3).

    Args:
        warmup: share of all steps over which the rate climbs.
        final: share of the peak rate at the end.
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
        warmup: share of all steps over which the rate climbs.
        milestones: shares of the steps after the warm-up at which the rate falls.
        gamma: the factor of each fall.
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
    """A rate that falls when validation has stalled.

    Args:
        warmup: share of all steps over which the rate climbs.
        gamma: the factor of each fall.
        patience: evaluations in a row without a better score before the rate falls.
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
    """Set the learning rates to so much of the initial ones."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
