"""Classify the sequences of a file of the user's."""

from collections.abc import Sequence
from typing import Literal

from seqbench.datasets.labelled import likely_counters
from seqbench.datasets.labelled_file import read_labelled
from seqbench.errors import ConfigError
from seqbench.tasks.class_splits import file_splits
from seqbench.tasks.classification import (
    Classification,
    Pool,
    chosen_channels,
    fitting,
    named_channels,
)
from seqbench.tasks.sequence_features import Missing
from seqbench.user_files import check_digest, expand_home
from seqbench.wording import plain


class ClassifyFile(Classification):
    """Classify the sequences of an npz, `.ts`, CSV or Parquet file.

    Args:
        id: of a table, the column that names a row's sequence.
        time: of a table, the column of times; `None`: `time`, if there is such a column.
        label: of a table, the column of classes.
        channels: the channels that the model reads, or `all`.
        valid_size: the fraction of each class in validation.
        test_size: the fraction of each class in test, if there is no test file. Both are fractions
            of all sequences of the file.
        split_seed: seed of the random choice.
        pool: as for `Classification`, like the next three.
        missing: `error` or `mask`.
        class_weight: `balanced` or `None`.
        eval_size: sequences of validation and of test; `None`: all.
        path: the file.
        sha256: expected SHA-256 of the file; `None`: any.
        test_path: a file with the sequences of test; `None`: they are split off.
        test_sha256: expected SHA-256 of the test file; `None`: any.

    Raises:
        ConfigError: if a column or channel is not there, a value is out of range, no file is given,
            or its SHA-256 differs.
        DataError: if a file cannot be read, values are missing, or a class has too few sequences.
    """

    def __init__(
        self,
        id: str,
        time: str | None,
        label: str,
        channels: Literal["all"] | Sequence[str],
        valid_size: float,
        test_size: float,
        split_seed: int,
        pool: Pool,
        missing: Missing,
        class_weight: Literal["balanced"] | None,
        eval_size: int | None,
        path: str | None = None,
        sha256: str | None = None,
        test_path: str | None = None,
        test_sha256: str | None = None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(
            pool,
            missing,
            class_weight,
            eval_size,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        if path is None:
            raise ConfigError("no file is given: set task.path=my.npz, my.ts or my.csv")
        whole = read_labelled(path, id, time, label, named_channels(channels))
        data = chosen_channels(whole, channels)
        self.complete(data)
        self.checksums[expand_home(path).name] = check_digest(path, sha256)
        counters = likely_counters(data)
        if counters:
            names = " and ".join(map(plain, counters))
            leave = f"task.time={plain(counters[0])}" if data.names else "task.channels without it"
            self.notes["likely_counter"] = (
                f"{names}: rises by 1 in each sequence, and is read as a channel; if it counts the "
                f"time steps, set {leave}"
            )
        assert data.labels is not None
        labels, test_count = data.labels, None
        if test_path is not None:
            test = read_labelled(test_path, id, time, label, data.channels)
            test = fitting(test, data, len(whole.channels))
            self.complete(test)
            digest = check_digest(test_path, test_sha256, "task.test_path")
            self.checksums[expand_home(test_path).name] = digest
            test_count = len(test.lengths)
            data = data.followed_by(test)
        rows = file_splits(labels, valid_size, test_size, split_seed, path, test_count)
        self.set_data(data, rows, (id, time, label), len(whole.channels))
