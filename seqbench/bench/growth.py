"""Fit how a step's time and memory grow with sequence length, batch size or model width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqbench.bench.measure import Measurement
from seqbench.config import Config
from seqbench.errors import ConfigError

# Short name -> config key.
SHORT = {"length": "task.length", "batch": "trainer.batch_size"}


@dataclass(frozen=True)
class Growth:
    """Measurements over the values of one config key, and the exponents fitted to them.

    Attributes:
        key: the swept key.
        values: its values.
        points: one measurement per value.
        exponent: `step time ~ value^exponent`.
        exponent_error: see `largest_error`; the bounds of a step time are half the distance between
            its 10th and 90th percentile away.
        memory_exponent: exponent of the peak memory; `None` if a measured peak was zero.
        reference_exponent: exponent of the reference's step time; `None` without a reference.
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
        """Fit the exponents to one measurement per value."""
        reference = [p.reference_step_ms for p in points if p.reference_step_ms is not None]
        memory = [p.peak_memory_bytes for p in points]
        return cls(
            key,
            tuple(values),
            tuple(points),
            exponent(values, [p.step_ms for p in points]),
            largest_error(values, [p.step_ms_p10 for p in points], [p.step_ms_p90 for p in points]),
            exponent(values, memory) if min(memory) > 0 else None,
            exponent(values, reference) if reference else None,
        )


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """Fit a of `cost ~ value^a` by least squares on logarithms; all numbers must be positive."""
    slope, _ = np.polyfit(np.log(values), np.log(costs), 1)
    return float(slope)


def largest_error(values: Sequence[float], least: Sequence[float], most: Sequence[float]) -> float:
    """Return the largest error of the exponent if each cost is off by half its logarithmic range.

    Args:
        values: values of the key.
        least: lower bound of each cost.
        most: upper bound of each cost.
    """
    sizes = np.log(values) - np.mean(np.log(values))
    spread = (np.log(most) - np.log(least)) / 2
    return float(np.abs(sizes) @ spread / (sizes @ sizes))


def parse(text: str) -> tuple[str, list[int]]:
    """Parse text such as `length=100,200` into the key and its sorted values.

    Raises:
        ConfigError: if there are not two different values, or one is not a whole number above zero.
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
    """Return the config overrides that set `key` to `value`.

    Args:
        key: `length`, `batch` or `width`, or any config key that takes whole numbers.
        value: the value to set.
        config: the config to override.

    Raises:
        ConfigError: if the key is `width`, and the model has none of `channels`, `hidden_size` and
            `dim`.
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
