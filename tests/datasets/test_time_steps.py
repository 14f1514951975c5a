"""Times go on as their series does: by steps, months, the ends of months, or business days."""

import numpy as np
import pytest

from seqbench.datasets.time_steps import following, nominal, step_name

DAY = np.timedelta64(1, "D")


@pytest.mark.parametrize(
    ("times", "step", "expected"),
    [
        (["2024-02-28T23:30"], 1 / 24, ["2024-02-29T00:30", "2024-02-29T01:30"]),
        (["2023-12-15"], 31, ["2024-01-15", "2024-02-15"]),
        (["2023-11-30", "2023-12-31"], 31, ["2024-01-31", "2024-02-29"]),
        (["2023-07-01", "2023-10-01"], 92, ["2024-01-01", "2024-04-01"]),
        (["2022-02-28", "2023-02-28"], 365, ["2024-02-29", "2025-02-28"]),
        (["2024-01-01", "2024-01-29"], 28, ["2024-02-26", "2024-03-25"]),  # every four weeks
        ([f"2024-02-{day}" for day in (12, 13, 14, 15, 16, 19)], 1, ["2024-02-20", "2024-02-21"]),
        (
            [f"2024-02-{d}T09" for d in (16, 19, 20, 21, 22, 23)],
            1,
            ["2024-02-26T09", "2024-02-27T09"],
        ),
        ([f"2024-02-{day}" for day in (12, 13, 14, 15, 16)], 1, ["2024-02-17", "2024-02-18"]),
    ],
)
def test_times_are_continued(times, step, expected):
    duration = np.timedelta64(round(step * 24), "h").astype("timedelta64[us]")
    found = following(np.array(times, "datetime64[us]"), duration, 2)
    assert found.tolist() == np.array(expected, "datetime64[us]").tolist()


def test_months_are_one_time_step():
    assert len({nominal(days * DAY) for days in (28, 29, 30, 31)}) == 1
    assert nominal(31 * DAY) not in (nominal(7 * DAY), nominal(90 * DAY), nominal(365 * DAY))
    assert nominal(np.timedelta64(15, "m")) == 15 * 60 * 1_000_000
    steps = (np.timedelta64(90, "m"), DAY, 30 * DAY, 366 * DAY)
    assert [step_name(step) for step in steps] == ["1:30:00", "1 day", "1 month", "1 year"]
    assert step_name(np.timedelta64(nominal(91 * DAY), "us")) == "3 months"
