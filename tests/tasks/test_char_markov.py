import hashlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from seqbench.errors import ConfigError
from seqbench.tasks.char_markov import CharMarkov, HiddenMarkovSource

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "task" / "char_markov.yaml"
DEFAULTS = {k: v for k, v in OmegaConf.load(CONFIG).items() if not k.startswith("_")}


def build(seed=0, **changes):
    return CharMarkov(**{**DEFAULTS, **changes}, batch_size=4, seed=seed, data_dir=None)


@pytest.fixture(scope="module")
def task():
    return instantiate(OmegaConf.load(CONFIG))(batch_size=32, seed=0, data_dir=None)


def losses(task, predict):
    """Return the nats of `predict(inputs) -> logits` on the test text, ordered as `source_nats`."""
    batches = list(task.eval_batches("test"))
    nats = [
        torch.nn.functional.cross_entropy(
            predict(b.inputs).flatten(0, 1), b.targets.flatten(), reduction="none"
        ).view_as(b.targets)
        for b in batches
    ]
    return torch.stack(nats, 1)[torch.stack([b.scored for b in batches], 1)].numpy()


def blockwise(differences, size=500):
    """Return mean and standard error of differences that correlate over less than `size` steps."""
    means = differences[: len(differences) // size * size].reshape(-1, size).mean(1)
    return means.mean(), means.std(ddof=1) / math.sqrt(len(means))


def test_the_forward_algorithm_equals_a_sum_over_all_paths():
    source = HiddenMarkovSource(3, 4, jump=0.3, concentration=1.0, seed=5)
    text = source.sample(7, 0)

    def joint(symbols):
        total = 0.0
        for path in itertools.product(range(3), repeat=len(symbols)):
            p = source.start[path[0]]
            for before, after in itertools.pairwise(path):
                p *= source.transition[before, after]
            for state, symbol in zip(path, symbols, strict=True):
                p *= source.emission[state, symbol]
            total += p
        return total

    prefixes = [1.0, *(joint(text[: t + 1]) for t in range(len(text)))]
    expected = np.diff(np.log(prefixes))
    np.testing.assert_allclose(source.log_probabilities(text), expected, rtol=1e-12)


def test_the_source_is_a_stationary_distribution():
    source = HiddenMarkovSource(6, 5, jump=0.2, concentration=0.5, seed=1)
    np.testing.assert_allclose(source.transition.sum(1), 1)
    np.testing.assert_allclose(source.emission.sum(1), 1)
    np.testing.assert_allclose(source.start @ source.transition, source.start)


def test_a_text_has_the_statistics_of_its_source():
    source = HiddenMarkovSource(3, 4, jump=0.3, concentration=1.0, seed=5)
    text = source.sample(100_000, 0)
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (text[:-1], text[1:]), 1 / (len(text) - 1))
    arrive = source.emission.T * source.start
    np.testing.assert_allclose(pairs, arrive @ source.transition @ source.emission, atol=0.005)


def test_texts_are_the_same_for_everybody():
    source = HiddenMarkovSource(16, 8, jump=0.01, concentration=0.7, seed=0)
    text = source.sample(1000, 2)
    assert hashlib.sha256(text).hexdigest() == (
        "55d96be68e1ae022ad3bdf95c87aea2260ae94b7a1b89067e78076cd229e6d84"
    )
    np.testing.assert_array_equal(source.sample(1500, 2)[:1000], text)
    assert (source.sample(1000, 1) != text).mean() > 0.5


def test_the_data_do_not_depend_on_the_seed_of_the_run():
    small = {"train_size": 5000, "eval_size": 500}
    first, second = build(0, **small), build(1, **small)
    assert first.checksums == second.checksums
    assert len(set(first.checksums.values())) == 3
    assert first.optimum == second.optimum
    assert first.checksums != build(0, **small, data_seed=1).checksums


def test_memory_is_what_the_task_asks_for(task):
    assert task.spec.output_dim == 8
    assert task.optimum < 0.85 * task.baseline < 0.85 * 3
    # The same source, if it sees four symbols of past only, is far from the optimum.
    text, source = task.symbols["test"][:20_000], task.source
    short = [source.log_probabilities(text[t - 4 : t + 1])[-1] for t in range(4, len(text))]
    assert -np.mean(short) / math.log(2) > 1.08 * task.optimum


def test_the_optimum_is_the_mean_over_the_scored_positions(task):
    nats = task.source_nats("test")
    count = sum(int(batch.scored.sum()) for batch in task.eval_batches("test"))
    assert len(nats) == count == 50_000 - 1
    assert task.optimum == pytest.approx(nats.mean() / math.log(2))
    first, second = task.symbols["test"][:2]
    belief = task.source.start * task.source.emission[:, first]
    expected = belief @ task.source.transition @ task.source.emission[:, second] / belief.sum()
    assert math.exp(-nats[0]) == pytest.approx(expected)


def test_losses_of_a_model_pair_with_those_of_the_source(task):
    """A bigram model knows part of what the source knows: it loses, and on the same symbols."""
    train = task.texts["train"].long()
    pairs = torch.ones(8, 8)
    pairs.index_put_((train[:-1], train[1:]), torch.ones(len(train) - 1), accumulate=True)
    logits = (pairs / pairs.sum(1, keepdim=True)).log()
    model, source = losses(task, lambda inputs: logits[inputs]), task.source_nats("test")
    mean, error = blockwise(model - source)
    assert mean > 20 * error
    assert np.corrcoef(model, source)[0, 1] > 0.2


def test_a_wrong_source_explains_the_text_less(task):
    text, right = task.symbols["test"], -task.source_nats("test")
    for args in [(16, 8, 0.05, 0.7, 0), (16, 8, 0.002, 0.7, 0), (16, 8, 0.01, 0.7, 1)]:
        wrong = HiddenMarkovSource(*args).log_probabilities(text)[1:]
        mean, error = blockwise(right - wrong)
        assert mean > 4 * error


def test_symbols_are_letters(task):
    letters = task.vocabulary.decode(task.texts["test"][:100])
    assert set(letters) <= set("abcdefgh")
    np.testing.assert_array_equal(task.vocabulary.encode(letters), task.symbols["test"][:100])
    assert task.vocabulary.unknown_count("abx") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_states", 0),
        ("vocab_size", 1),
        ("vocab_size", 27),
        ("jump", 0.0),
        ("jump", 1.5),
        ("concentration", 0.0),
        ("data_seed", -1),
        ("data_seed", 2**32),
        ("train_size", -5),
        ("eval_size", 1),
    ],
)
def test_a_size_that_cannot_be_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"task\.{key}") as error:
        build(**{key: value})
    assert "\n" not in str(error.value)


def test_a_text_shorter_than_a_batch_is_an_error():
    with pytest.raises(ConfigError, match=r"700 characters, but one batch of 4 .* takes 704"):
        build(train_size=700)
