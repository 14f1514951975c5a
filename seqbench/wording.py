"""Format numbers, metrics and names for the user: rounded, with units, printable."""

import difflib
import math
from collections.abc import Iterable

# Maximum number of characters of a name or message.
LONGEST = 2000
# Maximum number of significant digits of a mean with a narrow interval.
MOST_DIGITS = 6
METRICS = {
    "mse": "MSE",
    "mae": "MAE",
    "smape": "sMAPE (%)",
    "mase": "MASE",
    "cross_entropy": "cross-entropy (nats)",
    "nll": "NLL (nats)",
    "macro_f1": "macro F1",
}


def number(value: float | None, metric: str | None = None, digits: int = 3) -> str:
    """Format a number to `digits` significant digits, `None` as `-`, accuracies in percent.

    Sizes below 0.001 and from ten million are in scientific notation; in between all digits before
    the decimal point are kept. NaN and infinity, which training may show but records do not hold,
    are `nan` and `inf`.
    """
    if value is None:
        return "-"
    if metric is not None and is_accuracy(metric):
        value *= 100
    size = abs(value)
    if size == 0:
        return "0"
    if not size < math.inf:
        return str(value)
    if size < 1e-3 or size >= 1e7:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = digits - 1 - math.floor(math.log10(size))
    # Rounding may carry: 9.996 becomes 10.0, which has one decimal less than 9.99.
    if abs(round(value, decimals)) >= 10 ** (digits - decimals):
        decimals -= 1
    return f"{value:.{max(0, decimals)}f}"


def mean_and_spread(
    mean: float | None, half_width: float | None, metric: str | None = None
) -> tuple[str, str]:
    """Format a mean and the half width of its confidence interval.

    Both are rounded to the half width's second significant digit. The mean has between 3 and
    `MOST_DIGITS` significant digits.

    Args:
        mean: in the metric's unit.
        half_width: in the metric's unit; `None`, which gives empty text, without an interval.
        metric: name of the metric; accuracies are shown in percent.
    """
    if mean is None or not half_width or not 0 < abs(mean) < math.inf or half_width == math.inf:
        return number(mean, metric), "" if half_width is None else number(half_width, metric, 2)
    magnitude = math.floor(math.log10(abs(mean))) - math.floor(math.log10(half_width))
    wanted = max(magnitude + 2, 3)
    text = number(mean, metric, digits=min(wanted, MOST_DIGITS))
    if metric is not None and is_accuracy(metric):
        half_width *= 100
    decimals = len(text.partition(".")[2])
    fixed = f"{half_width:.{decimals}f}"
    same_decimals = wanted <= MOST_DIGITS and "e" not in text and float(fixed) > 0
    return text, fixed if same_decimals else number(half_width, digits=2)


def metric_name(metric: str) -> str:
    """Return a metric's name for display, with its unit."""
    name = METRICS.get(metric, plain(metric).replace("_", " "))
    return f"{name} %" if is_accuracy(metric) else name


def is_accuracy(metric: str) -> bool:
    """Return True if the metric is a fraction that is shown in percent."""
    return metric.endswith("accuracy")


def plain(text: str) -> str:
    """Remove unprintable characters, such as line breaks, and cut text after `LONGEST`."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    return "".join(c for c in text if c.isprintable())


def duration(seconds: object) -> str:
    """Format seconds in their two largest units, as in `2 m 05 s`; `-` if not a valid number."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def score(metric: str, value: float | None) -> str:
    """Format a metric with its value, as in `MSE 5.80e-5` or `accuracy 99.0 %`."""
    return f"{metric_name(metric).removesuffix(' %')} {amount(metric, value)}"


def amount(metric: str, value: float | None) -> str:
    """Format a metric's value alone, as in `99.0 %`."""
    return number(value, metric) + (" %" if is_accuracy(metric) else "")


def count(value: int | None) -> str:
    """Format a count with thousands separators, `None` as `-`."""
    return "-" if value is None else f"{value:,}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, `1 run` or `2,000 runs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def task_with_size(task: str, length: object) -> str:
    """Return a task's name and length for tables: `adding T=200`."""
    return f"{plain(task)} T={length}" if isinstance(length, int) else plain(task)


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a hint for the end of an error: the nearest known word, or else all known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f" (did you mean '{prefix}{close[0]}'?)"
    return f" (there are: {', '.join(known)})" if known else ""
