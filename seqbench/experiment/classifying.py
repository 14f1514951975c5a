"""Classify the sequences or texts of a new file with the weights of a run.

No training data are needed.
"""

from collections.abc import Iterator

import numpy as np
import torch

from seqbench.datasets.labelled import Labelled
from seqbench.datasets.labelled_file import read_labelled
from seqbench.datasets.labelled_texts import LabelledTexts, read_labelled_texts
from seqbench.errors import ConfigError, RunError
from seqbench.experiment.saved_run import SavedRun
from seqbench.tasks.sequence_features import SequenceFeatures, Sequences
from seqbench.tasks.task import Batch
from seqbench.tasks.text_features import TextFeatures
from seqbench.tasks.vocabulary import Vocabulary
from seqbench.training.prediction import predict
from seqbench.training.predictions import Columns, unused


def classify(saved: SavedRun, path: str) -> Iterator[Columns]:
    """Classify each sequence or text of a file, and yield the classes as columns, batch by batch.

    Args:
        saved: the run, of a task that `is_classifier` knows.
        path: an npz, `.ts`, CSV or Parquet file with the channels or the column of texts of the
            run. Its classes, if it has some, are not read.

    Yields:
        A row for each sequence: its text, its name under that of the id column, or else its number
        from 1 as `sequence`; its `class`; and the probability of each class.

    Raises:
        ConfigError: if the file lacks a column or a channel.
        DataError: if the file cannot be read, or misses a value.
        RunError: if the preprocessing of the run cannot be read.
    """
    features, sequences, data = read_new(saved, path, with_labels=False)
    sequences = sequences.to(saved.device)
    column = features.text if isinstance(features, TextFeatures) else features.id
    names = np.array(data.texts if isinstance(data, LabelledTexts) else data.names, object)
    classes = np.array(features.classes, object)
    for rows in sequences.parts(torch.arange(len(sequences.lengths))):
        inputs, lengths = sequences.padded(rows)
        batch = Batch(inputs, inputs.new_zeros(len(rows)), lengths=lengths)
        with torch.no_grad(), saved.trainer.autocast(saved.device):
            outputs, _, _ = predict(saved.model, batch, None, saved.spec)
        shares = outputs.float().softmax(-1).cpu().numpy()
        columns: Columns = {"sequence": rows.numpy() + 1}
        if len(names):
            columns = {column: names[rows.numpy()]}
        # A class or an id column may have any name, also that of another column.
        columns |= {unused("class", columns): classes[shares.argmax(1)]}
        for name, share in zip(features.classes, shares.T, strict=True):
            columns[unused(f"probability_{name}", columns)] = share
        yield columns


def read_new(
    saved: SavedRun, path: str, *, with_labels: bool
) -> tuple[SequenceFeatures | TextFeatures, Sequences, Labelled | LabelledTexts]:
    """Return the features of a run that classifies, their values, and what they are of.

    Args:
        saved: the run, of a task that `is_classifier` knows.
        path: an npz, `.ts`, CSV or Parquet file.
        with_labels: read the classes; those of sequences, if the file has some.

    Raises:
        ConfigError: if the file lacks a column or a channel.
        DataError: if it cannot be read, or misses a value.
        RunError: if the features cannot be read.
    """
    features = features_of(saved)
    try:
        if isinstance(features, TextFeatures):
            texts = read_labelled_texts(
                path, features.text, features.label, with_labels=with_labels
            )
            return features, features.of(texts), texts
        columns = features.id, features.time, features.label, features.channels
        data = read_labelled(path, *columns, with_labels=with_labels)
    except ConfigError as error:
        expected = "a new file has the columns of the run: rename the one that holds it"
        raise ConfigError(f"{error}; {expected}") from error
    data.check_channel_count(features.file_channels)
    data = data.of_channels(features.channels, "channels of the run")
    hint = "the model was trained with task.missing=error"
    data.check_complete(missing=features.masks, hint=hint)
    return features, features.of(data), data


def features_of(saved: SavedRun) -> SequenceFeatures | TextFeatures:
    """Return the features of a run that `is_classifier` knows.

    Raises:
        RunError: if they cannot be read.
    """
    kept = saved.preprocessing or {}
    kind = SequenceFeatures if "channels" in kept else TextFeatures
    try:
        return kind.from_json(kept)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the weights of this run hold no preprocessing that can be read: {error}; "
            "seqbench train with --force trains it again"
        ) from error


def is_classifier(saved: SavedRun) -> bool:
    """Return True if a run has what `classify` needs: classes, and channels or a vocabulary."""
    kept = (saved.preprocessing or {}).keys()
    return "classes" in kept and not kept.isdisjoint({"channels", Vocabulary.key})
