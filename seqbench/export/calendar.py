"""Compute calendar features from seconds since 1970, with operations that ONNX has."""

import math

import torch
from torch import Tensor

from seqbench.tasks.calendar_features import cycles


def calendar_of(seconds: Tensor, names: list[str]) -> Tensor:
    """Return `calendar_features` of times `(batch, time)`, as `(batch, time, 2 * len(names))`."""
    seconds = seconds.double()
    phases = cycles(seconds, months_of(seconds // 86_400))
    angles = torch.stack([2 * math.pi * (phases[name] % 1) for name in names], 2)
    return torch.cat([angles.sin(), angles.cos()], 2).float()


def months_of(days: Tensor) -> Tensor:
    """Return the months since 1970 of whole days since then, in the Gregorian calendar.

    Source: H. Hinnant, chrono-compatible low-level date algorithms, `civil_from_days`. Years begin
    in March there, so that a leap day is the last day of a year.
    """
    days = days + 719_468  # since 0000-03-01
    era = days // 146_097
    of_era = days - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # 0: March
    return 12 * (era * 400 + year - 1970) + month + 2
