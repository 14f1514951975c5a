"""Read the `.ts` files of the UCR/UEA archive of time series.

Lines that begin with `#` are comments, with `@` the header. After `@data` each line is a sequence:
its channels separated by colons, the values of a channel by commas, and its class at the end.
"""

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.labelled import QUOTED, Labelled, numbered_channels, quoted
from seqbench.errors import DataError
from seqbench.user_files import expand_home


def read_ts(path: str, *, with_labels: bool = True) -> Labelled:
    """Read the sequences of a `.ts` file; `?` is a missing value. See `read_labelled`.

    Raises:
        DataError: if the file cannot be read, is no classification problem, has time stamps, or a
            line does not fit its header.
    """
    file = expand_home(path)
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as text:
            numbered = [(n, s) for n, line in enumerate(text, 1) if (s := line.strip())]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not numbered:
        raise DataError(f"{path} is empty")
    lines = [(n, line) for n, line in numbered if not line.startswith("#")]
    begin = next((i for i, (_, line) in enumerate(lines) if line.lower() == "@data"), None)
    if begin is None:
        raise DataError(f"{path} has no line @data")
    header = header_of(lines[:begin], path)
    if header.get("timestamps", ["false"])[0].lower() == "true":
        raise DataError(f"{path}: @timeStamps true is not read: expected values without times")
    if header.get("targetlabel", ["false"])[0].lower() == "true":
        raise DataError(f"{path} is a regression problem (@targetLabel true), expected classes")
    named = header.get("classlabel", ["true"])
    is_labelled = named[0].lower() != "false"
    parts, labels = [], []
    for number, line in lines[begin + 1 :]:
        at = f"{path}, line {number}"
        channels = line.split(":")
        if is_labelled:
            labels.append(channels.pop().strip())
            is_known = bool(labels[-1]) and (len(named) == 1 or labels[-1] in named[1:])
            if not channels or (with_labels and not is_known):
                expected = f"one of {', '.join(named[1:])}" if len(named) > 1 else "one"
                raise DataError(
                    f"{at}: expected a class after the last colon, {expected}, got "
                    f"{quoted(labels[-1])}"
                )
        parts.append(sequence_of(channels, header, at))
        if parts[-1].shape[1] != parts[0].shape[1]:
            raise DataError(
                f"{at}: expected {parts[0].shape[1]} channels, as before, got {parts[-1].shape[1]}"
            )
    if not parts:
        raise DataError(f"{path} has no sequence after @data")
    return Labelled(
        path,
        numbered_channels(parts[0].shape[1]),
        np.concatenate(parts),
        np.array([len(part) for part in parts], np.int64),
        tuple(labels) if is_labelled and with_labels else None,
    )


def header_of(lines: list[tuple[int, str]], path: str) -> dict[str, list[str]]:
    """Return the words after each key of a header; keys in lower case.

    Raises:
        DataError: if a line does not begin with `@`.
    """
    header = {}
    for number, line in lines:
        key, *words = line.split()
        if not key.startswith("@"):
            raise DataError(
                f"{path}, line {number}: expected a line of the header such as @data, got "
                f"{quoted(line)}"
            )
        header[key[1:].lower()] = words or [""]
    return header


def sequence_of(channels: list[str], header: dict[str, list[str]], at: str) -> NDArray[np.float64]:
    """Return the values of a sequence, `(steps, channels)`.

    Raises:
        DataError: if they are no numbers, or do not fit the header.
    """
    found = [values_of(text, at) for text in channels]
    lengths = sorted({len(values) for values in found})
    if len(lengths) > 1:
        raise DataError(
            f"{at}: expected channels of one length, got {lengths[0]} to {lengths[-1]} values"
        )
    for key, got, what in (
        ("dimensions", len(found), "channels"),
        ("serieslength", lengths[0], "values"),
    ):
        stated = header.get(key, [""])[0]
        equal = header.get("equallength", ["true"])[0].lower() != "false"
        is_fixed = equal or key != "serieslength"
        # Compared as texts: int() refuses thousands of digits.
        is_number = stated.isascii() and stated.isdecimal()
        if is_number and is_fixed and stated.lstrip("0") not in ("", str(got)):
            said = stated[:QUOTED]
            raise DataError(f"{at}: expected {said} {what}, as the header says, got {got}")
    return np.stack(found, 1)


def values_of(text: str, at: str) -> NDArray[np.float64]:
    """Return the values of a channel, NaN for `?`.

    Raises:
        DataError: if one is no number.
    """
    values = text.split(",")
    try:
        return np.array(values, np.float64)
    except ValueError:
        pass
    found = np.empty(len(values))
    for i, value in enumerate(map(str.strip, values)):
        try:
            found[i] = np.nan if value == "?" else float(value)
        except ValueError:
            expected = "expected a number, or ? where it is missing"
            raise DataError(f"{at}: value {i + 1} is {quoted(value)}, {expected}") from None
    return found
