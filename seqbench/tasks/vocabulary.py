"""Map characters to ids.

A vocabulary is built from the training text alone, so that no score profits from knowing the test
set's alphabet. A character that is only in the validation or test text, or in a prompt, is unknown
and has id 0, which is written as U+FFFD. If that is in the training text, it has another id, too.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
CODE_POINTS = 0x110000
# Id of the characters that are not in the vocabulary.
UNKNOWN = 0
# Characters encoded at a time. The intermediate arrays of one slice fit in the CPU's cache; those
# of 100 million characters would take over a gigabyte.
SLICE = 1 << 18


class Vocabulary:
    """A bijection between characters and ids; unknown characters have id 0.

    Args:
        characters: the character of each id; all distinct, but U+FFFD may be the last one, too.
    """

    unit: ClassVar[str] = "characters"
    key: ClassVar[str] = "vocabulary"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        # The smallest dtype that holds every id; int16, as PyTorch hardly supports uint16.
        types = (np.uint8, np.int16, np.int32)
        self.dtype = next(t for t in types if len(characters) - 1 <= np.iinfo(t).max)
        self._ids = np.zeros(CODE_POINTS, self.dtype)
        self._ids[self.state()] = np.arange(len(characters))

    @classmethod
    def from_text(cls, train: str) -> "Vocabulary":
        """Build from a training text: id 0 is of unknown ones, then its characters, sorted."""
        # U+FFFD is the last, so that the other ids do not depend on it.
        return cls(REPLACEMENT + "".join(sorted(set(train), key=lambda c: (c == REPLACEMENT, c))))

    @classmethod
    def from_state(cls, state: Iterable[int]) -> "Vocabulary":
        """Build from the result of `state()`."""
        return cls("".join(map(chr, state)))

    def state(self) -> list[int]:
        """Return the code point of each id, for storage as JSON."""
        return [ord(character) for character in self.characters]

    def __len__(self) -> int:
        return len(self.characters)

    @property
    def known(self) -> str:
        """Return the characters of the training text: all but the U+FFFD of unknown ones."""
        return self.characters.removeprefix(REPLACEMENT)

    @property
    def names(self) -> list[str]:
        """Return the character of each id, in a list."""
        return list(self.characters)

    @property
    def unwritten(self) -> list[int]:
        """Return the ids of U+FFFD, in a list that is empty if the vocabulary has none."""
        return [i for i, character in enumerate(self.characters) if character == REPLACEMENT]

    def encode(self, text: str) -> NDArray[Any]:
        """Return the id of each character, `(len(text),)` of dtype `self.dtype`."""
        slices = (text[start : start + SLICE] for start in range(0, len(text), SLICE))
        return np.concatenate([np.zeros(0, self.dtype), *map(self._encode, slices)])

    def _encode(self, text: str) -> NDArray[Any]:
        # "surrogatepass": a prompt from a terminal with another encoding may have lone surrogates.
        return self._ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")]

    def decode(self, ids: Iterable[int], after: int | None = None) -> str:
        """Return the text of a sequence of ids; the id before it does not matter."""
        return "".join(self.characters[i] for i in ids)

    def unknown_count(self, text: str) -> int:
        """Return the number of characters of a text that are not in the vocabulary."""
        return sum(text.count(character) for character in set(text) - set(self.known))
