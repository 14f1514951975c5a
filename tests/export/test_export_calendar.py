import numpy as np
import torch

from seqbench.export.calendar import calendar_of
from seqbench.tasks.calendar_features import calendar_features


def test_calendar_features_of_seconds_are_those_of_times():
    random = np.random.default_rng(0)
    first, last = (np.datetime64(f"{year}-01-01", "s").astype(int) for year in (1599, 2401))
    days = np.arange("1999-12-30", "2000-03-03", dtype="datetime64[D]").astype("datetime64[s]")
    seconds = np.concatenate([random.integers(first, last, 20_000), days.astype(int)])
    names = ["hour", "weekday", "month"]
    found = calendar_of(torch.from_numpy(seconds)[None], names)[0]
    expected = calendar_features(seconds.astype("datetime64[s]").astype("datetime64[us]"), names)
    np.testing.assert_allclose(found, expected, atol=1e-6)
