"""Language modelling of a text whose best possible score is known.

The text is sampled from a hidden Markov model, so nothing is downloaded. The forward algorithm
(Rabiner 1989, section III A) gives the source's probability of each symbol given all previous ones.
In expectation no model scores better. The gap shows how well a model infers the hidden state from a
past of tens of symbols.
"""

import math
from bisect import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import ConfigError
from seqbench.tasks.segments import SegmentTask
from seqbench.tasks.task import Split, checksum
from seqbench.tasks.vocabulary import Vocabulary

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class HiddenMarkovSource:
    """A hidden Markov model whose state follows cycles and sometimes jumps.

    A random permutation arranges the states in cycles. At each step the state moves to the next one
    of its cycle, or, with probability `jump`, to a uniformly drawn state. The states' emission
    distributions overlap, so one symbol says little about the state, but tens of symbols say much.
    A model without memory is therefore far from the optimum.

    Random numbers come from numpy's legacy `RandomState`: unlike `Generator`, its streams never
    change, so every numpy version makes the same text.

    Args:
        num_states: hidden states.
        vocab_size: symbols.
        jump: probability of a jump per step, in (0, 1].
        concentration: parameter of the Dirichlet distribution of the emissions; the smaller, the
            fewer symbols a state emits.
        seed: seed of the source and of all its texts.

    Attributes:
        start: `(states,)`, the distribution of the first state, which is the stationary one.
        transition: `(states, states)`, the probability of moving from row to column.
        emission: `(states, symbols)`, each state's symbol probabilities.
    """

    def __init__(
        self, num_states: int, vocab_size: int, jump: float, concentration: float, seed: int
    ) -> None:
        random = np.random.RandomState(seed)
        cycles = np.eye(num_states)[random.permutation(num_states)]
        self.seed = seed
        # The uniform distribution is stationary under both cycles and jumps.
        self.start = np.full(num_states, 1 / num_states)
        self.transition = (1 - jump) * cycles + jump * self.start
        self.emission = random.dirichlet(np.full(vocab_size, concentration), num_states)

    def sample(self, size: int, stream: int) -> NDArray[np.uint8]:
        """Sample `size` symbols as one chain; each `stream` gives another text."""
        random = np.random.RandomState([self.seed, stream])
        state = int(random.random_sample() * len(self.start))
        draws = random.random_sample((size, 2))
        # A Python loop over lists takes 0.3 microseconds per step. The last bound is left out:
        # rounding may put it below 1, and a draw above it would be out of range.
        bounds = [row.cumsum()[:-1].tolist() for row in self.transition]
        states = np.empty(size, np.int64)
        for t, draw in enumerate(draws[:, 0].tolist()):
            states[t] = state
            state = bisect(bounds[state], draw)
        emitted = self.emission.cumsum(1)[states, :-1] <= draws[:, 1:]
        return emitted.sum(1).astype(np.uint8)

    def log_probabilities(self, symbols: NDArray[Any]) -> NDArray[np.float64]:
        """Return ln p(symbol t | symbols before t) for each t, `(len(symbols),)`."""
        # step[x][s, r]: the probability of emitting x in state s and moving to state r.
        step = self.emission.T[:, :, None] * self.transition
        belief = self.start
        probabilities = np.empty(len(symbols))
        for t, symbol in enumerate(symbols.tolist()):
            belief = belief @ step[symbol]
            probabilities[t] = probability = belief.sum()
            belief = belief / probability
        return np.log(probabilities)


class CharMarkov(SegmentTask):
    """Language modelling of a text from a `HiddenMarkovSource`.

    Args:
        num_states: hidden states of the source.
        vocab_size: symbols, 2 to 26, written as letters.
        jump: probability per step that the source jumps to a uniformly drawn state.
        concentration: parameter of the Dirichlet distribution of the emissions.
        data_seed: seed of the source and its texts.
        train_size: symbols of the training text.
        eval_size: symbols of the validation text, and of the test text.
        length: symbols in a window.
        context: leading symbols of a window that repeat the previous window.

    Raises:
        ConfigError: if a value is out of range, or as for `SegmentTask`.
    """

    def __init__(
        self,
        num_states: int,
        vocab_size: int,
        jump: float,
        concentration: float,
        data_seed: int,
        train_size: int,
        eval_size: int,
        length: int,
        context: int,
        *,
        batch_size: int,
        seed: int,
        data_dir: str | None,
    ) -> None:
        if num_states < 1:
            raise ConfigError(f"task.num_states must be at least 1, not {num_states}")
        if not 2 <= vocab_size <= len(ALPHABET):
            raise ConfigError(f"task.vocab_size must be from 2 to 26, not {vocab_size}")
        if not 0 < jump <= 1:
            raise ConfigError(f"task.jump must be in (0, 1], not {jump}")
        if concentration <= 0:
            raise ConfigError(f"task.concentration must be above 0, not {concentration}")
        if not 0 <= data_seed < 2**32:
            raise ConfigError(f"task.data_seed must be in [0, 2^32), not {data_seed}")
        if min(train_size, eval_size) < 2:
            raise ConfigError(
                "task.train_size and task.eval_size must be at least 2 symbols, "
                f"not {train_size} and {eval_size}"
            )
        self.source = HiddenMarkovSource(num_states, vocab_size, jump, concentration, data_seed)
        sizes = (train_size, eval_size, eval_size)
        self.symbols = {
            split: self.source.sample(size, stream)
            for stream, (split, size) in enumerate(zip(SPLITS, sizes, strict=True))
        }
        super().__init__(
            self.symbols,
            Vocabulary(ALPHABET[:vocab_size]),
            length,
            context,
            batch_size=batch_size,
            seed=seed,
            data_dir=data_dir,
        )
        self.optimum = float(self.source_nats("test").mean()) / math.log(2)
        self.checksums = {split: checksum(text) for split, text in self.texts.items()}

    def source_nats(self, split: Split) -> NDArray[np.float64]:
        """Return the source's loss in nats at each scored position, in the order of the text.

        The scored losses of a model on `eval_batches`, `(segments, rows, time)`, are in this order
        once the first two dimensions are swapped.
        """
        return -self.source.log_probabilities(self.symbols[split])[1:]
