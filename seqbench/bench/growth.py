"""How the cost of a step grows with the length of the sequences, the batch or the model's width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqbench.bench.measure import Measurement
from seqbench.configuration import Config
from seqbench.errors import ConfigError

# What people call them, and which key it is.
SHORT = {"length": "task.length", "batch": "trainer.batch_size"}


@dataclass(frozen=True)
class Growth:
    """Measurements over one key, and the exponents fitted to them.

    Attributes:
        key: what was swept.
        values: it took.
        points: a measurement of each.
        exponent: `step time ~ value^exponent`.
        exponent_error: how far it is off at most if each step time is off by half of the range from
            its 10th to its 90th percentile, in logarithms.
        memory_exponent: the same of the peak memory; `None` where some was too small to see.
        reference_exponent: the same of the reference's step time; `None` without one.
    """

    key: str
    values: tuple[int, ...]
    points: tuple[Measurement, ...]
    exponent: float
    exponent_error: float
    memory_exponent: float | None
    reference_exponent: float | None

    @classmethod
    def of(cls, key: str, values: Sequence[int], points: Sequence[Measurement]) -> "Growth":
        """Fit the exponents."""
        reference = [p.reference_step_ms for p in points if p.reference_step_ms is not None]
        memory = [p.peak_memory_bytes for p in points]
        return cls(
            key,
            tuple(values),
            tuple(points),
            exponent(values, [p.step_ms for p in points]),
            error(values, [p.step_ms_p10 for p in points], [p.step_ms_p90 for p in points]),
            exponent(values, memory) if min(memory) > 0 else None,
            exponent(values, reference) if reference else None,
        )


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """The a of `cost ~ value^a`, by least squares on logarithms; all numbers above zero."""
    slope, _ = np.polyfit(np.log(values), np.log(costs), 1)
    return float(slope)


def error(values: Sequence[float], least: Sequence[float], most: Sequence[float]) -> float:
    """By how much the exponent of costs within these bounds may be off."""
    sizes = np.log(values) - np.mean(np.log(values))
    spread = (np.log(most) - np.log(least)) / 2
    return float(np.abs(sizes) @ spread / (sizes @ sizes))


def parse(text: str) -> tuple[str, list[int]]:
    """From `length=100,200` to the key and its values.

    Raises:
        ConfigError: there are no two different whole numbers above zero.
    """
    key, equals, listed = text.partition("=")
    try:
        values = sorted({int(word) for word in listed.split(",")})
    except ValueError:
        values = []
    if not key or not equals or len(values) < 2 or values[0] < 1:
        raise ConfigError(f"--sweep takes two or more whole numbers, length=100,200, not '{text}'")
    return key, values


def overrides(key: str, value: int, config: Config) -> list[str]:
    """What to override so that `key` takes a value.

    Args:
        key: `length`, `batch` or `width`, or any key of a configuration that takes whole numbers.
        value: to be taken.
        config: without it.

    Raises:
        ConfigError: the model has nothing that we know as its width.
    """
    if key != "width":
        return [f"{SHORT.get(key, key)}={value}"]
    model = config["model"]
    if isinstance(model.get("channels"), list):
        return [f"model.channels={[value] * len(model['channels'])}"]
    if "hidden_size" in model:
        return [f"model.hidden_size={value}"]
    if "dim" in model:
        inner = model.get("hidden_dim")
        if inner is None:
            return [f"model.dim={value}"]
        return [f"model.dim={value}", f"model.hidden_dim={math.ceil(inner * value / model['dim'])}"]
    name = config["choices"]["model"]
    raise ConfigError(
        f"model={name} has no channels, hidden_size or dim: name a key, model.key=1,2"
    )
