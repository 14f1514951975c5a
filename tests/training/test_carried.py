import torch
from hypothesis import given
from hypothesis import strategies as st

from seqbench.training.carried import detached, flatten, joined, rows, unflatten

BATCH = 6

leaves = st.builds(
    lambda seed: torch.randn(BATCH, 2, generator=torch.Generator().manual_seed(seed)),
    st.integers(0, 999),
)
# Branches of more than ten, too: their names must not be told apart by their first digit.
trees = st.recursive(
    leaves | st.just(()),
    lambda inner: st.lists(inner, min_size=1, max_size=12).map(tuple),
    max_leaves=30,
).filter(lambda tree: isinstance(tree, torch.Tensor) or tree)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))


@given(trees)
def test_a_state_comes_back_from_its_names(tree):
    assert same(tree, unflatten(flatten(tree, "carried"), "carried"))


def test_no_state_comes_back_as_none():
    assert flatten(None, "carried") == {}
    assert unflatten({"model.weight": torch.ones(1)}, "carried") is None


@given(trees, st.sampled_from([1, 2, 3, 6]))
def test_the_parts_of_a_state_make_the_whole(tree, parts):
    assert same(tree, joined([rows(tree, part, parts) for part in range(parts)]))


def test_a_part_has_its_own_rows():
    tree = (torch.arange(6), (torch.arange(6) * 10,))
    assert same(rows(tree, 1, 3), (torch.tensor([2, 3]), (torch.tensor([20, 30]),)))
    assert rows(None, 0, 2) is None
    assert joined([None, None]) is None


def test_a_detached_state_has_no_history():
    weight = torch.ones(BATCH, requires_grad=True)
    ((state,), plain) = detached(((weight * 2,), weight))
    assert not state.requires_grad
    assert not plain.requires_grad
    assert torch.equal(state, torch.full((BATCH,), 2.0))
