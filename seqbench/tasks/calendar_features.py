"""Turn times into features: hour, weekday and month, as sine and cosine."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.time_steps import DAY


def calendar_names(step: np.timedelta64 | None) -> list[str]:
    """Return the calendar features that vary at a time step; none for `None`."""
    if step is None:
        return []
    shortest = {"hour": step < DAY, "weekday": step <= DAY, "month": True}
    return [name for name, varies in shortest.items() if varies]


def calendar_features(time: NDArray[np.datetime64], names: list[str]) -> NDArray[np.float32]:
    """Return sines, then cosines of calendar features, `(rows, 2 * len(names))`."""
    seconds = time.astype("datetime64[s]").astype(np.int64)
    months = time.astype("datetime64[M]").astype(np.int64)
    phases = cycles(seconds, months)
    angles = np.stack([2 * np.pi * (phases[name] % 1) for name in names], 1)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def cycles(seconds: Any, months: Any) -> dict[str, Any]:
    """Return the cycles of each feature since 1970, of arrays of seconds and months since then."""
    return {
        "hour": seconds / 86_400,
        "weekday": (seconds // 86_400 + 3) / 7,  # 1970-01-01 was a Thursday
        "month": months / 12,
    }
