"""Classify the series of datasets of the UCR/UEA archive (Dau et al. 2019; Bagnall et al. 2018)."""

from typing import Literal

from seqbench.datasets.catalog import UCR, find
from seqbench.datasets.download import ensure
from seqbench.datasets.ts_file import read_ts
from seqbench.errors import ConfigError
from seqbench.tasks.class_splits import file_splits
from seqbench.tasks.classification import Classification, Pool, fitting
from seqbench.wording import plain, suggestion


class Ucr(Classification):
    """A dataset of the archive, with its own test file.

    Validation sequences are of the training file: the archive has no validation split.

    Args:
        dataset: one of `catalog.UCR`.
        valid_size: the fraction of each class of the training file in validation.
        split_seed: seed of the random choice.
        pool: as for `Classification`, like the next two.
        class_weight: `balanced` or `None`.
        eval_size: sequences of validation and of test; `None`: all.

    Raises:
        ConfigError: if there is no such dataset, or a value is out of range.
        DataError: if its files cannot be downloaded or read.
    """

    def __init__(
        self,
        dataset: str,
        valid_size: float,
        split_seed: int,
        pool: Pool,
        class_weight: Literal["balanced"] | None,
        eval_size: int | None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(
            pool,
            "error",
            class_weight,
            eval_size,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        if dataset not in UCR:
            hint = suggestion(dataset, UCR)
            raise ConfigError(f"task.dataset: no dataset '{plain(dataset)}' is known{hint}")
        files = list(map(str, ensure(dataset, data_dir).values()))
        self.checksums |= find(dataset).checksums
        train, test = map(read_ts, files)
        assert train.labels is not None
        count = len(test.lengths)
        rows = file_splits(train.labels, valid_size, None, split_seed, files[0], count)
        test = fitting(test, train, len(train.channels))
        self.notes["dataset"] = dataset
        self.set_data(self.complete(train).followed_by(self.complete(test)), rows)
