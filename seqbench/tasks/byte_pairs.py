r"""Map pieces of words to ids: byte-pair encoding (Sennrich et al. 2016), as in LLaMA.

Digits are split one by one, and a character outside the vocabulary is written as its bytes in UTF-8
(Touvron et al. 2023, section 2.1), so that no character is unknown and every text survives. A space
belongs to the word after it; a line end is a token of its own.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# No merge crosses the border of a match: a line end, letters, signs, a digit, spaces. Of a run of
# spaces, the last goes with the letters or signs after it.
PIECE = r"\n| ?[\p{L}\p{M}]+| ?[^\s\d\p{L}\p{M}]+|\d|[^\S\n]+(?!\S)|[^\S\n]"
# Characters encoded at a time, up to the next line end, so that little memory is needed.
SLICE = 1 << 18
SURROGATE = re.compile("[\ud800-\udfff]")


class BytePairs:
    """A tokenizer of the library `tokenizers`.

    Args:
        tokenizer: without added tokens, so that its ids are those of its model.

    Attributes:
        spelling_bits: bits that one character of an unknown token costs: 0, as no token is unknown.
    """

    unit: ClassVar[str] = "subwords"
    key: ClassVar[str] = "tokenizer"
    spelling_bits: ClassVar[float] = 0.0

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_text(cls, train: str, vocab_size: int) -> "BytePairs":
        """Learn the merges of a training text; the same text gives the same merges.

        Args:
            train: the text.
            vocab_size: number of tokens: 256 bytes, characters and merges. Half of those beside the
                bytes may be characters, the most frequent ones.

        Raises:
            ConfigError: if the library is not installed.
        """
        tokenizers = imported()
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True))
        pieces = tokenizers.Regex(PIECE)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(pieces, "isolated")
        decoders = tokenizers.decoders
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        ranked = sorted(Counter(train).items(), key=lambda item: (-item[1], item[0]))
        alphabet = [character for character, _ in ranked[: (vocab_size - len(BYTES)) // 2]]
        # A line end in place of each other character: no merge crosses it.
        others = dict.fromkeys(map(ord, set(train) - set(alphabet)), "\n")
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=BYTES,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
        )
        lines = train.translate(others).splitlines(keepends=True)
        tokenizer.train_from_iterator(lines, trainer)
        # As added tokens they would also be found where a text spells them.
        return cls.from_state(json.loads(tokenizer.to_str()) | {"added_tokens": []})

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "BytePairs":
        """Build from the result of `state()`.

        Raises:
            ConfigError: if the library is not installed.
            ValueError: if the state is no tokenizer.
        """
        library = imported()
        try:
            return cls(library.Tokenizer.from_str(json.dumps(state)))
        except Exception as error:  # the library raises no narrower class
            raise ValueError(f"no tokenizer ({error})") from error

    def state(self) -> dict[str, Any]:
        """Return the tokenizer in the JSON format of the library."""
        state: dict[str, Any] = json.loads(self.tokenizer.to_str())
        return state

    def __len__(self) -> int:
        size: int = self.tokenizer.get_vocab_size()
        return size

    @property
    def names(self) -> list[str]:
        """Return the text of each id, a byte as in `<0x0A>`."""
        ids: dict[str, int] = self.tokenizer.get_vocab()
        return sorted(ids, key=ids.__getitem__)

    @property
    def unwritten(self) -> list[int]:
        """Return an empty list: each id stands for a text."""
        return []

    def encode(self, text: str) -> NDArray[Any]:
        """Return the id of each token, `(tokens,)` int32."""
        ids = [np.array(found.ids, np.int32) for found in self._encodings(text)]
        return np.concatenate([np.zeros(0, np.int32), *ids])

    def decode(self, ids: Iterable[int], after: int | None = None) -> str:
        """Return the text of a sequence of ids; incomplete characters become U+FFFD."""
        text: str = self.tokenizer.decode(list(ids))
        return text

    def spans(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the number of characters of each token, and that none is unknown.

        A character of several bytes belongs to the first of them.
        """
        found_ends, start = [np.zeros(1, np.int64)], 0
        for part, found in zip(slices(text), self._encodings(text), strict=True):
            found_ends.append(start + np.array([end for _, end in found.offsets], np.int64))
            start += len(part)
        ends: NDArray[np.int64] = np.concatenate(found_ends)
        return ends[1:] - ends[:-1], np.zeros(len(ends) - 1, np.bool_)

    def _encodings(self, text: str) -> Iterator[Any]:
        # A prompt from a terminal with another encoding may have lone surrogates.
        return map(self.tokenizer.encode, map(replaced, slices(text)))

    def unknown_count(self, text: str) -> int:
        """Return the number of lone surrogates of a text, which have no bytes in UTF-8."""
        return len(SURROGATE.findall(text))


def replaced(text: str) -> str:
    """Return a text with U+FFFD in place of each lone surrogate."""
    return SURROGATE.sub("\ufffd", text)


def slices(text: str) -> Iterator[str]:
    """Cut a text after line ends into parts of at least `SLICE` characters, but for the last."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + SLICE) + 1 or len(text)
        yield text[start:end]
        start = end


def imported() -> Any:
    """Return the library `tokenizers`.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise ConfigError(
            "task.tokens=bpe needs tokenizers: pip install 'seqbench[text]'"
        ) from None
    return tokenizers
