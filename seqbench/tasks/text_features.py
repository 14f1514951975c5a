"""Turn labelled texts into what a classifier reads: the ids of their characters. What is fitted to
the training texts is kept with the weights, so prediction shares this.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from seqbench.datasets.labelled_texts import LabelledTexts
from seqbench.spec import Tokens
from seqbench.tasks.sequence_features import Sequences
from seqbench.tasks.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Characters of texts as ids.

    Attributes:
        text, label: columns of a table.
        classes: names of the classes, in the order of the model's outputs.
        length: most characters that are read. Of a longer text the last ones are, since the model
            answers after the last character.
        vocabulary: maps characters to ids.
    """

    text: str
    label: str
    classes: list[str]
    length: int
    vocabulary: Vocabulary

    @property
    def input(self) -> Tokens:
        """Return the input of the models."""
        return Tokens(len(self.vocabulary))

    @property
    def notes(self) -> dict[str, int | float | str]:
        """Return facts for the record."""
        return {"characters": len(self.vocabulary)}

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as a JSON-serializable dict, for `from_json`."""
        return vars(self) | {"vocabulary": self.vocabulary.state()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TextFeatures":
        """Return the features of a result of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: if `values` are not such a result.
        """
        return cls(**values | {"vocabulary": Vocabulary.from_state(values["vocabulary"])})

    def of(self, data: LabelledTexts) -> Sequences:
        """Return the characters of texts."""
        texts = list(map(self.cut, data.texts))
        ids = torch.from_numpy(self.vocabulary.encode("".join(texts)))
        return Sequences(ids, torch.tensor(list(map(len, texts))))

    def cut(self, text: str) -> str:
        """Return the part of a text that is read."""
        return text[-self.length :]

    def unread(self, texts: Iterable[str]) -> tuple[int, int]:
        """Return how many texts are cut, and how many characters read are unknown."""
        texts = list(texts)
        cut = sum(len(text) > self.length for text in texts)
        return cut, self.vocabulary.unknown_count("".join(map(self.cut, texts)))
