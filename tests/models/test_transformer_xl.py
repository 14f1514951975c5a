"""Transformer-XL is the algorithm of its paper; what its memory reaches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqbench.errors import ConfigError
from seqbench.spec import Classes, Features, SequenceSpec, Tokens

SPEC = SequenceSpec(Tokens(13), Classes(13), "every", 12)
SMALL = {"dim": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 10}


def model_of(make, spec=SPEC, **values):
    """Return a float64 model with weights large enough for attention to be far from uniform."""
    model = make("transformer_xl", spec, **(SMALL | values)).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model.eval()


def in_segments(model, x, sizes):
    """Return the outputs of a sequence fed in segments, and the state after it."""
    state, parts = None, []
    for segment in x.split(sizes, 1):
        output, state = model(segment, state)
        parts.append(output)
    return torch.cat(parts, 1), state


def encoding(distance, dim):
    """R of one distance: sines, then cosines."""
    angles = [distance / 10_000 ** (2 * i / dim) for i in range(dim // 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)


def of_the_paper(model, tokens, memories):
    """Transcribe section 3.3 for one sequence, head by head, position by position.

    Args:
        model: gives the weights.
        tokens: `(time,)`.
        memories: m of each layer, a list of vectors.
    """
    h = [model.embedding.weight[token] for token in tokens]
    size = model.dim // SMALL["num_heads"]
    for layer, memory in zip(model.layers, memories, strict=True):
        attention, after = layer.attention, []
        known = [*memory, *h]
        for i in range(len(memory), len(known)):
            heads = []
            for head in range(SMALL["num_heads"]):
                part = slice(head * size, (head + 1) * size)
                w_q, w_ke, w_v, w_kr = (
                    each.weight[part]
                    for each in (
                        attention.query,
                        attention.key,
                        attention.value,
                        attention.position,
                    )
                )
                u, v = model.content_bias[part], model.distance_bias[part]
                q = w_q @ known[i]
                scores = []
                for j in range(i + 1):
                    k, r = w_ke @ known[j], w_kr @ encoding(i - j, model.dim)
                    a, b, c, d = q @ k, q @ r, u @ k, v @ r
                    scores.append((a + b + c + d) / math.sqrt(size))
                weights = torch.stack(scores).softmax(0)
                heads.append(sum(weights[j] * (w_v @ known[j]) for j in range(i + 1)))
            o = attention.output.weight @ torch.cat(heads) + known[i]
            o = F.layer_norm(o, o.shape, layer.attention_norm.weight, layer.attention_norm.bias)
            inner = (layer.up.weight @ o + layer.up.bias).clamp(min=0)
            y = o + layer.down.weight @ inner + layer.down.bias
            norm = layer.feed_forward_norm
            after.append(F.layer_norm(y, y.shape, norm.weight, norm.bias))
        h = after
    return torch.stack([model.output.weight @ each + model.output.bias for each in h])


@torch.no_grad()
def test_equals_the_equations_of_the_paper_with_and_without_memory(make):
    model = model_of(make, memory=6)
    x = torch.randint(13, (2, 12))
    first, state = model(x[:, :7])
    second, _ = model(x[:, 7:], state)
    for row in range(2):
        none = [[]] * 2
        expected = of_the_paper(model, x[row, :7], none)
        assert expected.std() > 0.5
        torch.testing.assert_close(first[row], expected, rtol=0, atol=1e-10)
        memories = [list(layer[row]) for layer in state]
        assert [len(memory) for memory in memories] == [6, 6]
        expected = of_the_paper(model, x[row, 7:], memories)
        torch.testing.assert_close(second[row], expected, rtol=0, atol=1e-10)
        forgetful = of_the_paper(model, x[row, 7:], none)
        assert (second[row] - forgetful).abs().max() > 0.01


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    spare=st.integers(0, 5),
    readout=st.sampled_from(["last", "every"]),
)
@torch.no_grad()
def test_segments_equal_one_pass_if_the_memory_reaches_the_start(make, sizes, spare, readout):
    time = sum(sizes)
    spec = SequenceSpec(Tokens(13), Classes(13), readout, 12)
    model = model_of(make, spec, memory=time - sizes[-1] + spare)
    x = torch.randint(13, (2, time))
    expected, whole = model(x)
    output, state = in_segments(model, x, sizes)
    if readout == "last":
        output = output.unflatten(1, (len(sizes), -1))[:, -1]
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    kept = min(time, time - sizes[-1] + spare)
    for mine, other in zip(state, whole, strict=True):
        assert mine.shape == (2, kept, 8)
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(("memory", "first"), [(0, 6), (1, 2), (2, 1), (3, 0)])
def test_the_first_step_of_a_segment_sees_the_memory_of_each_layer(make, memory, first):
    # In the third segment of three steps: layer 2 reads layer 1 at the `memory` steps before step
    # 6, and the earliest of these reads the `memory` steps before step 3, where its segment begins.
    model = model_of(make, memory=memory)
    x = torch.randint(13, (1, 9))
    output, _ = in_segments(model, x, 3)
    seen = []
    for step in range(9):
        changed = x.clone()
        changed[0, step] = (x[0, step] + 1) % 13
        moved = in_segments(model, changed, 3)[0][0, 6] - output[0, 6]
        if moved.abs().max() > 1e-9:
            seen.append(step)
    assert seen == list(range(first, 7))


def test_no_gradient_flows_into_the_memory_and_it_is_longer_in_evaluation(make):
    model = model_of(make, memory=4, eval_memory=9).train()
    x = torch.randint(13, (2, 12))
    _, state = model(x)
    assert all(layer.shape == (2, 4, 8) and not layer.requires_grad for layer in state)
    output, _ = model(x, state)
    output.square().sum().backward()
    assert model.layers[0].attention.key.weight.grad.any()
    _, state = model.eval()(x)
    assert all(layer.shape == (2, 9, 8) for layer in state)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"memory": None, "eval_memory": None}, (12, 12, True)),
        ({"memory": 3, "eval_memory": None}, (3, 3, True)),
        ({"memory": 3, "eval_memory": 0}, (3, 0, True)),
        ({"memory": 0, "eval_memory": 5}, (0, 5, True)),
        ({"memory": 0, "eval_memory": None}, (0, 0, False)),
    ],
)
def test_the_state_of_a_text_is_carried_if_there_is_a_memory(make, values, expected):
    model = make("transformer_xl", SPEC, **(SMALL | values))
    assert (model.memory, model.eval_memory, model.carry_state) == expected
    one_answer = SequenceSpec(Tokens(13), Classes(13), "last", 12)
    assert not make("transformer_xl", one_answer, **(SMALL | values)).carry_state


@torch.no_grad()
def test_blocks_of_queries_compute_the_same(make, monkeypatch):
    model = model_of(make, memory=12)
    x = torch.randint(13, (2, 24))
    expected, _ = in_segments(model, x, 12)
    monkeypatch.setattr("seqbench.models.transformer_xl.BLOCK", 5)
    torch.testing.assert_close(in_segments(model, x, 12)[0], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_readout_last_is_the_last_step_of_every(make):
    every_step = model_of(make)
    last = model_of(make, SequenceSpec(Tokens(13), Classes(13), "last", 12))
    x = torch.randint(13, (3, 12))
    torch.testing.assert_close(last(x)[0], every_step(x)[0][:, -1], rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_size_of_a_feature_is_not_lost_in_the_first_norm(make):
    model = make("transformer_xl", SequenceSpec(Features(1), Classes(3), "every", 1)).eval()
    small, large = (model.embedding(torch.full((1, 1, 1), size)) for size in (0.5, 1.0))
    assert F.cosine_similarity(small, large, dim=-1).item() < 0.999


@pytest.mark.parametrize("vocabulary", [15, 16])
def test_embeddings_start_small_whatever_the_size_of_the_vocabulary(make, vocabulary):
    spec = SequenceSpec(Tokens(vocabulary), Classes(vocabulary), "every", 12)
    model = make("transformer_xl", spec, **(SMALL | {"dim": 16}))
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, r"model\.dim must be at least 1, not 0"),
        ({"num_layers": 0}, r"model\.num_layers"),
        ({"num_heads": 0}, r"model\.num_heads"),
        ({"hidden_dim": 0}, r"model\.hidden_dim"),
        ({"dim": 9, "num_heads": 3}, r"model\.dim=9 must be even, and a multiple of .*=3"),
        ({"num_heads": 3}, r"model\.dim=8 must be even, and a multiple of model\.num_heads=3"),
        ({"dropout": 1.0}, r"model\.dropout"),
        ({"memory": -1}, r"model\.memory must be at least 0, not -1"),
        ({"eval_memory": -2}, r"model\.eval_memory must be at least 0, not -2"),
    ],
)
def test_a_size_that_cannot_be_is_named(make, values, message):
    with pytest.raises(ConfigError, match=message):
        make("transformer_xl", SPEC, **(SMALL | values))
