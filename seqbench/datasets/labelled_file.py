"""Read labelled sequences from a file: npz, `.ts`, or a long CSV or Parquet table."""

from collections.abc import Collection
from pathlib import Path

from seqbench.datasets.labelled import Labelled
from seqbench.datasets.long_table import read_long_table
from seqbench.datasets.npz_file import read_npz
from seqbench.datasets.ts_file import read_ts


def read_labelled(
    path: str,
    id: str = "id",
    time: str | None = None,
    label: str = "label",
    channels: Collection[str] | None = None,
    *,
    with_labels: bool = True,
) -> Labelled:
    """Read labelled sequences from a file.

    Args:
        path: `.npz`, `.ts`, or a table with a row per time step: Parquet if its name ends with
            `.parquet` or `.pq`, else CSV.
        id: of a table, the column that names the sequence of a row.
        time: of a table, the column of times, which must increase within each sequence; `None`:
            `time` if there is such a column, else the order of the file.
        label: of a table, the column of classes.
        channels: of a table, the columns that are read, which must not hold broken numbers; `None`:
            all.
        with_labels: read the classes, if the file has some.

    Raises:
        ConfigError: if a named column does not exist.
        DataError: if the file cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return read_npz(path, with_labels=with_labels)
    if suffix == ".ts":
        return read_ts(path, with_labels=with_labels)
    return read_long_table(path, id, time, label, channels, with_labels=with_labels)
