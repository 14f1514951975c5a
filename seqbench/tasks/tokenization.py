"""Define what a tokenization of texts can do, and load one that is kept with the weights of a run.

There are three: characters (`vocabulary`), words (`words`) and pieces of words (`byte_pairs`). Each
is built from the training text alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from seqbench.errors import RunError
from seqbench.tasks.byte_pairs import BytePairs
from seqbench.tasks.vocabulary import Vocabulary
from seqbench.tasks.words import Words


class Tokenization(Protocol):
    """A mapping between texts and token ids.

    Attributes:
        unit: name of the tokens in messages, in the plural.
        key: key of its state in the preprocessing of a run.
    """

    unit: ClassVar[str]
    key: ClassVar[str]

    def __len__(self) -> int:
        """Return the number of ids."""

    @property
    def names(self) -> list[str]:
        """Return the text of each id, for tables of predictions."""

    @property
    def unwritten(self) -> list[int]:
        """Return the ids that stand for no text of their own, which are never sampled."""

    def encode(self, text: str) -> NDArray[Any]:
        """Return the ids of the tokens of a text, `(tokens,)`."""

    def decode(self, ids: Iterable[int], after: int | None = None) -> str:
        """Return the text of a sequence of ids.

        Args:
            ids: the sequence.
            after: the id before it; `None`: a text begins.
        """

    def unknown_count(self, text: str) -> int:
        """Return the number of tokens of a text that are not in the vocabulary."""

    def state(self) -> Any:
        """Return what the tokenization is built from, for storage as JSON."""


KINDS = {kind.key: kind for kind in (Vocabulary, Words, BytePairs)}


def kept_tokenization(preprocessing: Mapping[str, Any]) -> Tokenization | None:
    """Return the tokenization in the preprocessing of a run; `None` for another task.

    Raises:
        ConfigError: if it needs a library that is not installed.
        RunError: if it is damaged.
    """
    for key, kind in KINDS.items():
        if key in preprocessing:
            try:
                return kind.from_state(preprocessing[key])
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(
                    f"the {kind.unit} kept with the weights are damaged: {error}"
                ) from error
    return None
