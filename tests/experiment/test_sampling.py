"""Sampling with a temperature, of all characters or of the likeliest."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.experiment.sampling import choose

# Few distinct values, so that many are equally likely; -inf is never chosen.
LOGITS = st.lists(
    st.sampled_from([-torch.inf, -1e30, -3.0, -0.5, 0.0, 0.25, 2.0, 1e30])
    | st.floats(-9, 9, width=32),
    min_size=1,
    max_size=12,
).filter(lambda values: max(values) > -torch.inf)
TEMPERATURES = st.sampled_from([1e-38, 0.1, 0.8, 1.0, 3.0, 1e6])
SEEDS = st.integers(0, 2**63 - 1)


def drawn(logits, temperature, top_k, seed, times=20):
    random = torch.Generator().manual_seed(seed)
    return [int(choose(torch.tensor(logits), temperature, top_k, random)) for _ in range(times)]


def likeliest(logits, k):
    """The `k` ids of the largest logits, the smaller id first of equal ones."""
    return sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:k]


@given(LOGITS, TEMPERATURES, st.integers(1, 14), SEEDS)
@settings(max_examples=150)
def test_no_id_is_drawn_outside_the_likeliest(logits, temperature, k, seed):
    found = drawn(logits, temperature, k, seed)
    assert set(found) <= set(likeliest(logits, k))
    assert all(logits[i] > -torch.inf for i in found)
    assert found == drawn(logits, temperature, k, seed), "the seed fixes the sample"


@given(LOGITS, TEMPERATURES, SEEDS)
@settings(max_examples=100)
def test_the_likeliest_one_is_the_greedy_choice(logits, temperature, seed):
    greedy = drawn(logits, 0, None, seed, times=3)
    assert drawn(logits, temperature, 1, seed, times=3) == greedy
    assert greedy == likeliest(logits, 1) * 3


@given(LOGITS, TEMPERATURES, st.integers(0, 3), SEEDS)
@settings(max_examples=100)
def test_as_many_as_there_are_change_nothing(logits, temperature, more, seed):
    everything = drawn(logits, temperature, None, seed)
    assert drawn(logits, temperature, len(logits) + more, seed) == everything


def test_the_likeliest_keep_their_odds():
    logits = [1.0, 0.0, 1.5, -2.0]
    found = torch.tensor(drawn(logits, 0.5, 2, seed=0, times=4000)).bincount(minlength=4) / 4000
    kept = torch.tensor([1.0, -torch.inf, 1.5, -torch.inf])
    # Four standard errors of a fraction.
    assert torch.allclose(found, (kept / 0.5).softmax(0), rtol=0, atol=4 * 0.5 / 4000**0.5)
