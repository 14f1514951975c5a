"""Write predictions as CSV, Parquet or JSON lines, however many they are.

DuckDB keeps the rows in a temporary file beside the target until all are there.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.errors import ConfigError, RunError, first_line

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

# Suffix of a file -> options of DuckDB's COPY.
FORMATS = {".csv": "FORMAT csv, HEADER", ".parquet": "FORMAT parquet", ".jsonl": "FORMAT json"}
# Rows beyond this are on disk only.
MEMORY: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "1GB"}
# numpy dtype -> SQL type.
TYPES = {
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "datetime64[D]": "DATE",
    "datetime64[us]": "TIMESTAMP",
    "object": "VARCHAR",
}


class PredictionTable:
    """A table that grows by columns of numpy arrays.

    Args:
        connection: of an empty database.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self.connection = connection
        self.size = 0

    def append(self, columns: "Mapping[str, NDArray[Any]]") -> None:
        """Append rows, given by their columns; NaN is kept as a missing value."""
        if not self.size:
            typed = ", ".join(
                f"{quoted(name)} {TYPES[str(x.dtype)]}" for name, x in columns.items()
            )
            self.connection.execute(f"CREATE TABLE IF NOT EXISTS predictions ({typed})")
        # DuckDB does not read views with negative strides, nor dates of numpy.
        rows = {
            name: np.ascontiguousarray(x.astype("datetime64[us]") if x.dtype.kind == "M" else x)
            for name, x in columns.items()
        }
        self.connection.register("batch", rows)
        self.connection.execute("INSERT INTO predictions FROM batch")
        self.connection.unregister("batch")
        self.size += len(next(iter(columns.values())))


def quoted(name: str) -> str:
    """Return the name of a column as SQL."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def prediction_table(path: Path) -> Iterator[PredictionTable]:
    """Yield a table that is written to a file at the end; an error leaves the file as it was.

    Args:
        path: a file in an existing folder, whose suffix says the format. It is replaced.

    Raises:
        ConfigError: if the suffix is another one than those of `FORMATS`.
        RunError: if the file cannot be written.
    """
    import duckdb

    if path.suffix not in FORMATS:
        raise ConfigError(f"expected a file that ends with {', '.join(FORMATS)}, got {path}")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            draft = Path(folder) / "draft"
            with duckdb.connect(Path(folder) / "rows.duckdb", config=MEMORY) as connection:
                table = PredictionTable(connection)
                yield table
                target = str(draft).replace("'", "''")
                connection.execute(f"COPY predictions TO '{target}' ({FORMATS[path.suffix]})")
            draft.replace(path)
    except duckdb.Error as error:
        raise RunError(f"cannot write {path}: {first_line(error)}") from error
