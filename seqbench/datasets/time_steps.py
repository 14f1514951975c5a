"""Compare the time steps of series, and continue their times.

Months, quarters and years vary in length, and series of business days leave out weekends.
"""

import numpy as np
from numpy.typing import NDArray

DAY = np.timedelta64(1, "D")
# Shortest and longest number of days of a month, a quarter and a year -> months.
MONTHS = {(28, 31): 1, (89, 92): 3, (365, 366): 12}


def months_of(step: np.timedelta64) -> int | None:
    """Return the months of a time step; `None` if it is not one of months, quarters or years."""
    return next((n for (a, b), n in MONTHS.items() if a * DAY <= step <= b * DAY), None)


def nominal(step: np.timedelta64) -> int:
    """Return a time step in microseconds; the same for all months, quarters or years."""
    months = months_of(step)
    if months is not None:
        step = next(shortest for (shortest, _), n in MONTHS.items() if n == months) * DAY
    return int(step / np.timedelta64(1, "us"))


def without_midnight(times: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return times as dates if all are at midnight; anything else as it is."""
    is_dates = times.dtype.kind == "M" and (times == times.astype("datetime64[D]")).all()
    return times.astype("datetime64[D]") if is_dates else times


def step_name(step: np.timedelta64) -> str:
    """Return a time step in words, such as `1 day, 6:00:00` or `1 month`."""
    if (months := months_of(step)) is not None:
        return {1: "1 month", 3: "3 months", 12: "1 year"}[months]
    return str(step.astype("timedelta64[us]").astype(object)).removesuffix(", 0:00:00")


def moment(time: np.datetime64) -> str:
    """Return a time without the parts that are zero, as in `2020-12-31 23:00`."""
    text = str(time).replace("T", " ").removesuffix(".000000").removesuffix(":00")
    return text.removesuffix(" 00:00")


def zone_name(offset: np.timedelta64) -> str:
    """Return a time zone by its offset from UTC: `UTC`, `UTC+09:00`."""
    minutes = int(offset / np.timedelta64(1, "m"))
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}" if minutes else "UTC"


def is_business_days(times: NDArray[np.datetime64], step: np.timedelta64) -> bool:
    """Return True if times with a step of a day are business days, and more than five."""
    days = times.astype("datetime64[D]")
    return step == DAY and len(times) > 5 and bool(np.is_busday(days).all())


def following(
    times: NDArray[np.datetime64], step: np.timedelta64, count: int
) -> NDArray[np.datetime64]:
    """Return the times after those of a series, `(count,)` datetime64[us].

    Args:
        times: of the series, in order, at least one.
        step: its time step. Months keep the day of the month, or its end if all times are at the
            end of a month; a week of days without a weekend is continued without weekends.
        count: number of times.
    """
    ahead, last = np.arange(1, count + 1), times[-1]
    months, days = times.astype("datetime64[M]"), times.astype("datetime64[D]")
    if per_step := months_of(step):
        begins, ends = times - months, (months + 1).astype(times.dtype) - times
        later = months[-1] + per_step * ahead
        if ends[-1] <= DAY and (ends == ends[-1]).all():
            return (later + 1).astype(times.dtype) - ends[-1]
        if (begins == begins[-1]).all():
            return later.astype(times.dtype) + begins[-1]
    if is_business_days(times, step):
        later = np.busday_offset(days[-1], ahead)
        return later.astype(times.dtype) + (last - days[-1])
    result: NDArray[np.datetime64] = last + step * ahead
    return result
