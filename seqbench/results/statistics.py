"""Compute confidence intervals and paired comparisons of means over a few seeds."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from seqbench.wording import is_accuracy

# With fewer seeds, confidence intervals are too wide to be reported.
FEWEST_SEEDS = 3


class Scale(NamedTuple):
    """A scale on which scores of a metric are roughly normal: to and from it."""

    to: Callable[[float], float]
    back: Callable[[float], float]


IDENTITY = Scale(lambda value: value, lambda value: value)
LOG = Scale(math.log, lambda value: math.exp(min(value, 700.0)))
LOGIT = Scale(lambda p: math.log(p / (1 - p)), lambda x: 1 / (1 + math.exp(-max(-700.0, x))))


@dataclass(frozen=True)
class Statistics:
    """A sample of scores, one for each seed.

    Attributes:
        n: sample size, at least 1.
        log: True if `mean`, `sd` and the interval are computed from the logarithms.
        mean: sample mean, of logarithms the geometric mean.
        sd: sample standard deviation (denominator n - 1), that of the logarithms if `log`; `None`
            for n=1 or if not finite.
        low: lower end of the 95% confidence interval of the mean (Student's t); `None` for n=1 or
            if an end is not finite.
        high: its upper end.
        median: sample median.
        min: smallest value.
        max: largest value.
    """

    n: int
    log: bool
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    median: float
    min: float
    max: float


def describe(values: Sequence[float], log: bool = False) -> Statistics:
    """Compute the statistics of a sample.

    Args:
        values: at least one, all finite, and all positive if `log`.
        log: compute mean and interval from the logarithms.
    """
    n, scale = len(values), LOG if log else IDENTITY
    scaled = [scale.to(value) for value in values]
    middle = statistics.mean(scaled)
    try:
        sd = statistics.stdev(scaled) if n > 1 else math.inf
    except OverflowError:  # scores near the largest float
        sd = math.inf
    half = t_quantile(n - 1) * sd / math.sqrt(n) if n > 1 else math.inf
    low, high = scale.back(middle - half), scale.back(middle + half)
    is_finite = math.isfinite(low) and math.isfinite(high) and math.isfinite(half)
    return Statistics(
        n=n,
        log=log,
        mean=scale.back(middle),
        sd=sd if math.isfinite(sd) else None,
        low=low if is_finite else None,
        high=high if is_finite else None,
        median=statistics.median(values),
        min=min(values),
        max=max(values),
    )


def scale_of(metric: str, values: Sequence[float]) -> Scale:
    """Return the scale of a metric: logit for accuracies, log for errors, as far as it is defined.

    Args:
        metric: name of the metric.
        values: all values that are compared on the scale.
    """
    if is_accuracy(metric):
        return LOGIT if all(0 < value < 1 for value in values) else IDENTITY
    return LOG if all(value > 0 for value in values) else IDENTITY


def prediction_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the middle and the half width of the 95% prediction interval of one more value.

    The interval is `mean +- t * sd * sqrt(1 + 1/n)`. If the next value is of the same normal
    distribution, it lies outside in 5% of all cases, whatever the sample size.

    Args:
        values: the sample, on a scale on which it is roughly normal.

    Returns:
        `None` for a sample of one, or if the interval is not finite.
    """
    sample = describe(values)
    if sample.sd is None:
        return None
    return sample.mean, t_quantile(sample.n - 1) * sample.sd * math.sqrt(1 + 1 / sample.n)


def paired(
    first: Mapping[int, float], second: Mapping[int, float], log: bool = False
) -> Statistics | None:
    """Return the statistics of the differences between two samples of scores over shared seeds.

    Pairing removes the variance that a seed causes in both samples.

    Args:
        first: seed -> score.
        second: seed -> score.
        log: of the ratios first / second instead, whose logarithms are averaged; the scores are
            positive.

    Returns:
        `None` if no seed is shared, or a difference is not finite.
    """
    shared = [seed for seed in first if seed in second]
    if log:
        values = [first[seed] / second[seed] for seed in shared]
    else:
        values = [first[seed] - second[seed] for seed in shared]
    fits = all(math.isfinite(value) and (value > 0 or not log) for value in values)
    return describe(values, log) if values and fits else None


def distinguishable(
    first: Mapping[int, float], second: Mapping[int, float], log: bool = False
) -> bool | None:
    """Test if the means of two samples of scores differ, by their `paired` statistics.

    Returns:
        True if the 95% confidence interval of the mean difference (Student's t) excludes zero, or
        that of the ratio excludes one; `None` if fewer than three seeds are shared or a difference
        is not finite.
    """
    sample = paired(first, second, log)
    if sample is None or sample.n < FEWEST_SEEDS:
        return None
    if sample.low is None or sample.high is None:
        return False
    return not sample.low <= (1 if log else 0) <= sample.high


@lru_cache(maxsize=256)
def t_quantile(df: int, coverage: float = 0.95) -> float:
    """Return t such that `P(|T| < t) = coverage`, for Student's t with `df` degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_coverage(middle, df) < coverage else (low, middle)
    return math.tan(low) * math.sqrt(df)


def t_coverage(theta: float, df: int) -> float:
    """Return `P(|T| < tan(theta) sqrt(df))` (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    sine, cosine = math.sin(theta), math.cos(theta)
    # The terms cos, 2/3 cos^3, 2*4/(3*5) cos^5, ... for odd df; 1, 1/2 cos^2, ... for even df.
    term = cosine if df % 2 else 1.0
    total = 0.0
    for power in range(2 + df % 2, df + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / math.pi * (theta + sine * total) if df % 2 else sine * total
