"""How numbers, metrics and names are written for people: rounded, with a unit, harmless."""

import math

# Characters of a name, or of a message.
LONGEST = 2000
# Of a mean with a narrow interval.
MOST_DIGITS = 6
METRICS = {"mse": "MSE", "cross_entropy": "cross-entropy (nats)", "nll": "NLL (nats)"}


def number(value: float | None, metric: str | None = None, digits: int = 3) -> str:
    """A number to a few significant digits, `-` for none; accuracies in per cent.

    Below 0.001 in scientific notation; whole numbers keep all their digits up to ten million. What
    is not finite is `nan` or `inf`: a training may show it, while records know none.
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
    # Rounding may carry: 9.996 is 10.0, which has one decimal less than 9.99.
    if abs(round(value, decimals)) >= 10 ** (digits - decimals):
        decimals -= 1
    return f"{value:.{max(0, decimals)}f}"


def mean_and_spread(
    mean: float | None, half_width: float | None, metric: str | None = None
) -> tuple[str, str]:
    """A mean and half of its interval, both to the second digit of the interval, within reason.

    Args:
        mean: in the metric's unit, like the half width.
        half_width: `None`, for which nothing is said, if there is no interval.
        metric: accuracies are given in per cent.
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
    alike = wanted <= MOST_DIGITS and "e" not in text and float(fixed) > 0
    return text, fixed if alike else number(half_width, digits=2)


def metric_name(metric: str) -> str:
    """What a metric is called on a screen, with its unit."""
    name = METRICS.get(metric, plain(metric).replace("_", " "))
    return f"{name} %" if is_accuracy(metric) else name


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a fraction that screens show in per cent."""
    return metric.endswith("accuracy")


def plain(text: str) -> str:
    """Text without control characters, line breaks and what else could move a cursor; what is too
    long for anybody to read is cut off.
    """
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    return "".join(c for c in text if c.isprintable())


def duration(seconds: object) -> str:
    """A time in its two largest units, as in `2 m 05 s`; `-` for what is no number."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def score(metric: str, value: float | None) -> str:
    """A metric with its value, as in `MSE 5.80e-5` or `accuracy 99.0 %`."""
    return f"{metric_name(metric).removesuffix(' %')} {amount(metric, value)}"


def amount(metric: str, value: float | None) -> str:
    """A metric's value alone, as in `99.0 %`."""
    return number(value, metric) + (" %" if is_accuracy(metric) else "")


def task_with_size(task: str, length: object) -> str:
    """A task as tables name it: `adding T=200`."""
    return f"{plain(task)} T={length}" if isinstance(length, int) else plain(task)
