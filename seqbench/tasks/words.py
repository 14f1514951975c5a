r"""Map words to ids.

Words are what white space separates, and each line end is a word of its own, `<eos>`. How much
white space there is between two words is lost; a text whose words are separated by single spaces
survives. A word outside the vocabulary becomes `<unk>`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

UNKNOWN, END = "<unk>", "<eos>"
WORD = re.compile(r"\S+|\n")


class Words:
    """A bijection between words and ids.

    Args:
        words: the word of each id; all distinct, `<unk>` and `<eos>` among them.

    Raises:
        ValueError: if `<unk>` or `<eos>` is missing, or a word occurs twice.
    """

    unit: ClassVar[str] = "words"
    key: ClassVar[str] = "words"

    def __init__(self, words: Sequence[str]) -> None:
        self.names = list(words)
        self._ids = {word: i for i, word in enumerate(self.names)}
        if len(self._ids) < len(self.names) or not {UNKNOWN, END} <= self._ids.keys():
            raise ValueError(f"expected distinct words with {UNKNOWN} and {END}")
        self._unknown, self._end = self._ids[UNKNOWN], self._ids[END]

    @classmethod
    def from_text(cls, train: str, min_count: int = 1, vocab_size: int | None = None) -> "Words":
        """Build from a training text: its words, the most frequent one first.

        Args:
            train: the text.
            min_count: rarer words are left out.
            vocab_size: most words, with `<unk>` and `<eos>`; `None`: no limit.
        """
        counts = Counter(map(as_word, WORD.findall(train)))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [w for w, count in ranked if count >= min_count and w not in (UNKNOWN, END)]
        kept = kept[: None if vocab_size is None else vocab_size - 2]
        return cls([UNKNOWN, END, *kept])

    @classmethod
    def from_state(cls, state: Sequence[str]) -> "Words":
        """Build from the result of `state()`.

        Raises:
            TypeError: if it is not a list of texts.
        """
        if not isinstance(state, list) or not all(isinstance(word, str) for word in state):
            raise TypeError("expected a list of words")
        return cls(state)

    def state(self) -> list[str]:
        """Return the word of each id, for storage as JSON."""
        return self.names

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unwritten(self) -> list[int]:
        """Return the id of `<unk>`, in a list."""
        return [self._unknown]

    def encode(self, text: str) -> NDArray[Any]:
        """Return the id of each word, `(words,)` int32."""
        found = (self._ids.get(as_word(word), self._unknown) for word in WORD.findall(text))
        return np.fromiter(found, np.int32)

    def decode(self, ids: Iterable[int], after: int | None = None) -> str:
        r"""Return words with a space between them, and `\n` for `<eos>`."""
        parts = []
        for before, i in pairwise([self._end if after is None else after, *ids]):
            space = "" if self._end in (before, i) else " "
            parts.append("\n" if i == self._end else space + self.names[i])
        return "".join(parts)

    def spans(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the number of characters of each word, and True where it is unknown.

        White space belongs to the word after it, at the end of the text to the last word. It counts
        as one character however long it is: a model must not be credited for what it need not
        predict.
        """
        found = list(WORD.finditer(text))
        starts = [match.start() for match in found]
        ends = [match.end() for match in found]
        spaces = np.array(
            [start > end for start, end in zip(starts, [0, *ends], strict=False)], int
        )
        spaces[-1:] += ends[-1:] < [len(text)]
        unknown = np.array([as_word(match[0]) not in self._ids for match in found], np.bool_)
        return np.array(ends, np.int64) - np.array(starts, np.int64) + spaces, unknown

    def unknown_count(self, text: str) -> int:
        """Return the number of words of a text that are not in the vocabulary."""
        return sum(as_word(word) not in self._ids for word in WORD.findall(text))

    @property
    def spelling_bits(self) -> float:
        """Return the bits that one character of an unknown word costs.

        Each character of the vocabulary is as likely as any other, with one end of a word.
        """
        return math.log2(len(set("".join(self.names))) + 1)


def as_word(found: str) -> str:
    """Return what stands for a match of `WORD` in the vocabulary."""
    return END if found == "\n" else found
