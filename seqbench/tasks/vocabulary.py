"""Which character has which id.

A vocabulary is built from the training text alone. A character that first turns up in the
validation or test text, or in a prompt, is unknown: it gets id 0, so that no score profits from
having seen the test set's alphabet.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CODE_POINTS = 0x110000
# The array of code points of a slice this long, and the ids from it, stay in the CPU's cache; of
# 100 million characters at once they would take over a gigabyte.
SLICE = 1 << 18


class Vocabulary:
    """A bijection between characters and ids, with id 0 for all other characters.

    Args:
        characters: the character of each id; all distinct.
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        # The smallest type that holds every id; int16, as torch can do little with uint16.
        types = (np.uint8, np.int16, np.int32)
        self.dtype = next(t for t in types if len(characters) - 1 <= np.iinfo(t).max)
        self._ids = np.zeros(CODE_POINTS, self.dtype)
        self._ids[self.state()] = np.arange(len(characters))

    @classmethod
    def from_text(cls, train: str) -> "Vocabulary":
        """The sorted characters of the training text, after U+FFFD, the unknown one, as id 0."""
        return cls(REPLACEMENT + "".join(sorted(set(train) - {REPLACEMENT})))

    @classmethod
    def from_state(cls, state: Iterable[int]) -> "Vocabulary":
        """The vocabulary whose `state()` this is."""
        return cls("".join(map(chr, state)))

    def state(self) -> list[int]:
        """The code point of each id, to be kept as JSON."""
        return [ord(character) for character in self.characters]

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> NDArray[Any]:
        """The id of each character, `(len(text),)` of type `dtype`."""
        slices = (text[start : start + SLICE] for start in range(0, len(text), SLICE))
        return np.concatenate([np.zeros(0, self.dtype), *map(self._encode, slices)])

    def _encode(self, text: str) -> NDArray[Any]:
        # A prompt from a terminal with another encoding may hold lone surrogates.
        return self._ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of ids, in order."""
        return "".join(self.characters[i] for i in ids)

    def unknown_count(self, text: str) -> int:
        """How many characters of a text are not in the vocabulary."""
        return sum(text.count(character) for character in set(text) - set(self.characters))
