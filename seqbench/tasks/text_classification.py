"""Classify texts, read character by character: film reviews, or texts of a file of the user's.

The model reads what a language model of characters reads, so it can start from the weights of one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqbench.datasets.catalog import find
from seqbench.datasets.labelled import class_names
from seqbench.datasets.labelled_texts import LabelledTexts, read_labelled_texts
from seqbench.datasets.nsmc import load_nsmc
from seqbench.errors import ConfigError, DataError
from seqbench.tasks.class_splits import fewer, file_splits
from seqbench.tasks.classification import Classification, Pool
from seqbench.tasks.task import Batch, Split
from seqbench.tasks.text_features import TextFeatures
from seqbench.tasks.vocabulary import Vocabulary
from seqbench.user_files import check_digest, expand_home

Rows = Mapping[Split, NDArray[np.int64]]


class TextClassification(Classification):
    """Base class of tasks that classify texts. Subclasses call `set_texts`."""

    def set_texts(
        self,
        data: LabelledTexts,
        rows: Rows,
        columns: tuple[str, str],
        length: int,
        train_size: int | None,
        split_seed: int,
        characters: str | None,
    ) -> None:
        """Fit vocabulary and classes to the training texts, and set all attributes of the task.

        Args:
            data: the texts of all splits.
            rows: the places of the texts of each split.
            columns: `text` and `label` of a table, for `predict`.
            length: most characters of a text that are read.
            train_size: number of training texts; `None`: all.
            split_seed: seed of the choice of these.
            characters: of the vocabulary; `None`: those of all training texts.

        Raises:
            ConfigError: if a size is out of range.
            DataError: if there is one class only, or a class of validation or test is not in
                training.
        """
        assert data.labels is not None
        if length < 1:
            raise ConfigError(f"task.length must be at least 1 character, not {length}")
        classes = class_names([data.labels[i] for i in rows["train"]])
        if len(classes) < 2:
            raise DataError(f"{data.path}: expected at least 2 classes, got {len(classes)}")
        # From all training texts, since `train_size` must change neither the model nor its classes.
        if characters is None:
            characters = "".join({c for i in rows["train"] for c in data.texts[i][-length:]})
        features = TextFeatures(*columns, classes, length, Vocabulary.from_text(characters))
        sequences = features.of(data)
        longest = int(sequences.lengths[rows["train"]].max())
        used = {**rows, "train": fewer(data.labels, rows["train"], train_size, split_seed)}
        self.set_sequences(features, sequences, data.labels, data.path, used)
        self.spec = replace(self.spec, length=longest)
        trained = {data.texts[i] for i in used["train"]}
        for split, own in self.rows.items():
            seen = 0 if split == "train" else sum(data.texts[i] in trained for i in own)
            self.notes |= {f"{split}_texts_in_train": seen} if seen else {}
            cut, unknown = features.unread(data.texts[i] for i in own)
            self.notes |= {f"cut_{split}": cut} if cut else {}
            self.notes |= {f"unknown_{split}": unknown} if unknown else {}

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yield the texts by length, since film reviews in their order are padded to 4 times."""
        rows = self.rows[split]
        for part in self.sequences.parts(rows[self.sequences.lengths[rows].argsort(stable=True)]):
            yield self.batch(part)


class Nsmc(TextClassification):
    """Korean film reviews, positive or negative (NSMC).

    Args:
        length: characters of a review that are read, the last ones.
        train_size: number of training reviews, evenly of both classes; `None`: all 17,498. Those of
            a smaller number are among those of a larger one.
        split_seed: seed of the choice of these.
        pool: as for `Classification`, like the next.
        eval_size: reviews of validation and of test; `None`: all.
        characters: characters of the vocabulary; `None`: those of all training reviews.

    Raises:
        ConfigError: if a value is out of range.
        DataError: if the reviews cannot be downloaded.
    """

    def __init__(
        self,
        length: int,
        train_size: int | None,
        split_seed: int,
        pool: Pool,
        eval_size: int | None,
        characters: str | None = None,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        super().__init__(
            pool, "error", None, eval_size, batch_size=batch_size, seed=seed, data_dir=data_dir
        )
        data, rows = load_nsmc(data_dir)
        self.checksums |= find("nsmc").checksums
        columns = "document", "label"
        self.set_texts(data, rows, columns, length, train_size, split_seed, characters)  # type: ignore[arg-type]


class SentimentFile(TextClassification):
    """Classify the texts of a CSV or Parquet file by sentiment, topic or any other label.

    Args:
        text: the column of texts.
        label: the column of classes.
        length: characters of a text that are read, the last ones.
        train_size: number of training texts, with the fractions of the classes; `None`: all. Those
            of a smaller number are among those of a larger one.
        valid_size: the fraction of each class in validation.
        test_size: the fraction of each class in test, if there is no test file. Both are fractions
            of all texts of the file.
        split_seed: seed of the random choices.
        pool: as for `Classification`, like the next two.
        class_weight: `balanced` or `None`.
        eval_size: texts of validation and of test; `None`: all.
        path: the file.
        sha256: expected SHA-256 of the file; `None`: any.
        test_path: a file with the texts of test; `None`: they are split off.
        test_sha256: expected SHA-256 of the test file; `None`: any.
        characters: characters of the vocabulary; `None`: those of all training texts.

    Raises:
        ConfigError: if a column is not there, a value is out of range, no file is given, or its
            SHA-256 differs.
        DataError: if a file cannot be read, a text or class is missing, or a class has too few
            texts.
    """

    def __init__(
        self,
        text: str,
        label: str,
        length: int,
        train_size: int | None,
        valid_size: float,
        test_size: float,
        split_seed: int,
        pool: Pool,
        class_weight: Literal["balanced"] | None,
        eval_size: int | None,
        path: str | None = None,
        sha256: str | None = None,
        test_path: str | None = None,
        test_sha256: str | None = None,
        characters: str | None = None,
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
        if path is None:
            raise ConfigError("no file is given: set task.path=my.csv, .tsv or .parquet")
        data = read_labelled_texts(path, text, label)
        assert data.labels is not None
        self.checksums[expand_home(path).name] = check_digest(path, sha256)
        labels, test_count = data.labels, None
        if test_path is not None:
            test = read_labelled_texts(test_path, text, label)
            assert test.labels is not None
            digest = check_digest(test_path, test_sha256, "task.test_path")
            self.checksums[expand_home(test_path).name] = digest
            test_count = len(test.texts)
            data = replace(data, texts=data.texts + test.texts, labels=data.labels + test.labels)
        rows = file_splits(labels, valid_size, test_size, split_seed, path, test_count)
        self.set_texts(data, rows, (text, label), length, train_size, split_seed, characters)
