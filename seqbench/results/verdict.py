"""What may be concluded of a published number from runs of our own.

A verdict is for a reader in a hurry, so it never says more than the runs do: what was measured on
something else is not comparable, fewer than three seeds give a hint, and an interval so wide that
it also holds what a model without memory scores cannot tell. Another protocol (settings, and which
split chose) is said beside the verdict: whether a result holds under a stricter one is what people
want to know.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from seqbench.results.aggregate import Cell
from seqbench.results.papers import PublishedCell, unlike
from seqbench.results.statistics import FEWEST_SEEDS

EXPLAINED = {"reproduced", "better", "worse", "cannot tell"}
EXPLANATION = (
    "reproduced: the published value lies within the 95% interval over seeds, or is the mean as"
    " rounded in print; better, worse: it does not; cannot tell: the interval also holds what a"
    " predictor without memory scores"
)


class Verdict(NamedTuple):
    """What may be concluded of a number: in words, and why there is no more to it."""

    words: str
    reason: str = ""


def verdict(cell: Cell | None, published: PublishedCell | None) -> Verdict:
    """What some runs say of a published number.

    Args:
        cell: the runs, which differ in the seed only; `None` if there are none.
        published: the number; `None` if the paper has none.
    """
    if cell is None:
        return Verdict("not measured")
    lost = [f"{n} {how}" for n, how in ((cell.diverged, "diverged"), (cell.failed, "failed")) if n]
    sample = cell.statistics
    if sample is None:
        return Verdict("not measured", f"of {len(cell.records)} runs {', '.join(lost)}")
    if published is None:
        return Verdict("no published value")
    reasons = [reason] if (reason := unlike(cell, published, any_protocol=True)) else []
    # What survived says too much.
    reasons += [f"of {len(cell.records)} runs {', '.join(lost)}"] if lost else []
    if reasons:
        return Verdict("not comparable", ", ".join(reasons))
    protocol = unlike(cell, published) or ""
    off = sample.mean - published.value
    within = abs(off) <= rounding(published)
    better = "better" if (off < 0) == (published.direction == "min") else "worse"
    if sample.n < FEWEST_SEEDS or sample.ci95 is None:
        return Verdict(f"n={sample.n}: looks {'alike' if within else better}", protocol)
    if not within and abs(off) > sample.ci95:
        return Verdict(better, protocol)
    bound = cell.baseline
    if not within and bound is not None and abs(sample.mean - bound) <= sample.ci95:
        holds = "the interval holds a predictor without memory, too"
        return Verdict("cannot tell", f"{holds}; {protocol}" if protocol else holds)
    return Verdict("reproduced", protocol)


def rounding(published: PublishedCell) -> float:
    """Half a unit of the last digit in print, in the unit of our records."""
    exponent = Decimal(published.printed).as_tuple().exponent
    assert isinstance(exponent, int)  # neither NaN nor infinity is printed
    half = Decimal(5).scaleb(exponent - 1)
    # A little more, since a mean that ends in 5 is no exact binary number.
    return float(half / (100 if published.unit == "%" else 1)) * (1 + 1e-9)


def explanation(said: Iterable[str]) -> list[str]:
    """A note on the words of some verdicts, if they need one."""
    return [EXPLANATION] if EXPLAINED.intersection(said) else []
