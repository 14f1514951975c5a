"""Judge if measured runs reproduce a published number.

Verdicts are conservative. Runs of another length, metric or budget are not comparable, nor are
cells with a failed or diverged run. Fewer than three seeds give only a hint. If the confidence
interval also contains the score of a model without memory, the verdict is `cannot tell`. Runs with
another protocol of seqbench (settings and selection split) still get a verdict, with the difference
as its reason: users want to know if a result holds under a stricter protocol.
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
    """A verdict on a published number, and the reason that limits it."""

    words: str
    reason: str = ""


def verdict(cell: Cell | None, published: PublishedCell | None) -> Verdict:
    """Return the verdict of some runs on a published number.

    Args:
        cell: the runs, which differ in the seed only; `None` if there are none.
        published: the published number; `None` if the paper reports none.
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
    # The mean of the remaining runs is biased.
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
        holds = "the interval contains the baseline"
        return Verdict("cannot tell", f"{holds}; {protocol}" if protocol else holds)
    return Verdict("reproduced", protocol)


def rounding(published: PublishedCell) -> float:
    """Return half a unit of the last printed digit, in the unit of records."""
    exponent = Decimal(published.printed).as_tuple().exponent
    assert isinstance(exponent, int)  # papers print no NaN or infinity
    half = Decimal(5).scaleb(exponent - 1)
    # Add 1e-9 relative tolerance: decimals that end in 5 have no exact binary representation.
    return float(half / (100 if published.unit == "%" else 1)) * (1 + 1e-9)


def explanation(said: Iterable[str]) -> list[str]:
    """Return a note that explains the words of these verdicts, or no note if none needs it."""
    return [EXPLANATION] if EXPLAINED.intersection(said) else []
