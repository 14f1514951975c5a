"""The decoder is the Llama of transformers; its cache, window, rotation and initial weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.errors import ConfigError
from seqbench.kernels.reference import rotate
from seqbench.models.attention import rotation
from seqbench.models.llama import Llama
from seqbench.spec import Classes, Features, SequenceSpec, Tokens

SPEC = SequenceSpec(Tokens(23), Classes(23), "every", 32)
SMALL = {"dim": 16, "num_layers": 2, "num_heads": 4, "hidden_dim": None}


def randomise(model, seed=0):
    """Draw weights large enough for attention to be far from uniform."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    return model.eval()


def in_segments(model, x, sizes):
    """Return the outputs of a sequence fed in segments, and the state after it."""
    state, parts = None, []
    for segment in x.split(sizes, 1):
        output, state = model(segment, state)
        parts.append(output)
    return torch.cat(parts, 1), state


@pytest.fixture(scope="module", params=[4, 2, 1], ids="{} key-value heads".format)
def pair(request, make):
    """Return the decoder and the one of transformers, with the same weights."""
    transformers = pytest.importorskip("transformers")
    model = make("llama", SPEC, **SMALL, num_kv_heads=request.param)
    randomise(model)
    config = transformers.LlamaConfig(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=request.param,
        rms_norm_eps=1e-5,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        attention_bias=False,
        mlp_bias=False,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    names = {
        "embedding": "model.embed_tokens",
        "norm": "model.norm",
        "output": "lm_head",
    }
    for i in range(2):
        ours, layer = f"blocks.{i}", f"model.layers.{i}"
        names |= {
            f"{ours}.attention_norm": f"{layer}.input_layernorm",
            f"{ours}.attention.query": f"{layer}.self_attn.q_proj",
            f"{ours}.attention.key": f"{layer}.self_attn.k_proj",
            f"{ours}.attention.value": f"{layer}.self_attn.v_proj",
            f"{ours}.attention.output": f"{layer}.self_attn.o_proj",
            f"{ours}.feed_forward_norm": f"{layer}.post_attention_layernorm",
            f"{ours}.feed_forward.gate": f"{layer}.mlp.gate_proj",
            f"{ours}.feed_forward.up": f"{layer}.mlp.up_proj",
            f"{ours}.feed_forward.down": f"{layer}.mlp.down_proj",
        }
    weights = {
        f"{names[k.removesuffix('.weight')]}.weight": v for k, v in model.state_dict().items()
    }
    theirs.load_state_dict(weights, strict=True)
    return model, theirs


@torch.no_grad()
def test_equals_the_llama_of_transformers(pair):
    model, theirs = pair
    x = torch.randint(23, (3, 32))
    expected = theirs(x).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(model(x)[0], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_equals_the_llama_of_transformers_token_by_token(pair):
    model, theirs = pair
    x = torch.randint(23, (2, 32))
    output, _ = in_segments(model, x, [1] * 32)
    cache, parts = None, []
    for token in x.split(1, 1):
        step = theirs(token, past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        parts.append(step.logits)
    torch.testing.assert_close(output, torch.cat(parts, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(output, theirs(x).logits, rtol=0, atol=1e-5)


GPT2 = {"norm": "layer", "feed_forward": "gelu", "positions": "learned"}


@torch.no_grad()
def test_with_the_parts_of_gpt2_it_equals_the_gpt2_of_transformers(make):
    transformers = pytest.importorskip("transformers")
    model = randomise(make("llama", SPEC, **SMALL, **GPT2))
    config = transformers.GPT2Config(
        vocab_size=23,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=4,
        activation_function="gelu",
        tie_word_embeddings=False,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    weights = {k: torch.zeros_like(v) for k, v in theirs.state_dict().items() if "bias" in k}
    weights |= {
        "transformer.wte.weight": model.embedding.weight,
        "transformer.wpe.weight": model.positions.weight,
        "transformer.ln_f.weight": model.norm.weight,
        "lm_head.weight": model.output.weight,
    }
    for i, block in enumerate(model.blocks):
        attention, layer = block.attention, f"transformer.h.{i}"
        projections = [attention.query.weight, attention.key.weight, attention.value.weight]
        weights |= {
            f"{layer}.ln_1.weight": block.attention_norm.weight,
            f"{layer}.attn.c_attn.weight": torch.cat(projections).T,
            f"{layer}.attn.c_proj.weight": attention.output.weight.T,
            f"{layer}.ln_2.weight": block.feed_forward_norm.weight,
            f"{layer}.mlp.c_fc.weight": block.feed_forward.up.weight.T,
            f"{layer}.mlp.c_proj.weight": block.feed_forward.down.weight.T,
        }
    theirs.load_state_dict(weights, strict=True)
    x = torch.randint(23, (3, 32))
    expected = theirs(x).logits
    assert expected.std() > 0.5
    output, state = model(x)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert state is None


@pytest.mark.parametrize("kept", GPT2)
def test_each_part_can_be_exchanged_at_equal_size(make, kept):
    spec = SequenceSpec(Tokens(23), Classes(23), "every", 16)
    parts = {part: value for part, value in GPT2.items() if part != kept}
    wide = SMALL | {"dim": 96}
    model = randomise(make("llama", spec, **wide, **parts))
    x = torch.randint(23, (2, 16))
    model(x)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    size = sum(p.numel() for n, p in model.named_parameters() if n != "positions.weight")
    assert size == sum(p.numel() for p in make("llama", spec, **wide).parameters())


def test_learned_positions_end_with_the_training_sequence(make):
    model = make("llama", SPEC, **SMALL, **GPT2)
    with pytest.raises(
        ConfigError, match="learned 32 positions, too few for a sequence of 33 steps"
    ):
        model(torch.randint(23, (1, 33)))
    with pytest.raises(ConfigError, match=r"carry_state needs model\.positions=rotary"):
        make("llama", SPEC, **SMALL, **GPT2, carry_state=True)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    context=st.one_of(st.none(), st.integers(1, 40)),
    num_kv_heads=st.sampled_from([1, 2, 4]),
    readout=st.sampled_from(["last", "every"]),
    double=st.booleans(),
)
@torch.no_grad()
def test_segments_with_carried_state_equal_one_pass(
    make, sizes, context, num_kv_heads, readout, double
):
    time = sum(sizes)
    spec = SequenceSpec(Tokens(23), Classes(23), readout, time)
    values = {"num_kv_heads": num_kv_heads, "context": context}
    model = randomise(make("llama", spec, **SMALL, **values))
    if double:
        model.double()
    x = torch.randint(23, (2, time))
    expected, whole = model(x)
    output, state = in_segments(model, x, sizes)
    if readout == "last":
        output = output.unflatten(1, (len(sizes), -1))[:, -1]
    tolerance = 1e-10 if double else 1e-5
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    cached = min(time, (context or time) - 1)
    for caches in (whole, state):
        assert all(t.shape == (2, cached, num_kv_heads, 4) for layer in caches for t in layer)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_window_of_c_reaches_back_c_minus_one_steps_a_layer(make, num_layers):
    context, time = 4, 24
    spec = SequenceSpec(Features(2), Classes(3), "every", time)
    sizes = SMALL | {"num_layers": num_layers}
    model = randomise(make("llama", spec, **sizes, context=context)).double()
    x = torch.randn(1, time, 2, dtype=torch.float64, requires_grad=True)
    step = 17
    (gradient,) = torch.autograd.grad(model(x)[0][0, step].sum(), x)
    seen = gradient[0].abs().sum(-1).nonzero().flatten()
    assert seen.tolist() == list(range(step - num_layers * (context - 1), step + 1))


@torch.no_grad()
def test_the_cache_and_the_angles_stay_bounded_over_a_long_text(make):
    model = randomise(make("llama", SPEC, **SMALL, context=8))
    x = torch.randint(23, (1, 400))
    whole, _ = model(x)
    output, state = in_segments(model, x, 7)
    assert state[0][0].shape[1] == 7
    torch.testing.assert_close(output, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_readout_last_is_the_last_step_of_every(make):
    last = SequenceSpec(Tokens(23), Classes(23), "last", 32)
    for context in (None, 5):
        every_step = randomise(make("llama", SPEC, **SMALL, context=context))
        one = make("llama", last, **SMALL, context=context).eval()
        one.load_state_dict(every_step.state_dict())
        x = torch.randint(23, (3, 32))
        torch.testing.assert_close(one(x)[0], every_step(x)[0][:, -1], rtol=1e-5, atol=1e-5)


def test_rotation_keeps_lengths_and_sees_distances_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 3, 8, dtype=torch.float64).expand(2, 1, 50, 3, 8)
    cos, sin = rotation(50, 8, 100.0, torch.float64, torch.device("cpu"))
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    torch.testing.assert_close(q.norm(dim=-1), q[:, :1].norm(dim=-1).expand(1, 50, 3))
    scores = q[0, :, 0] @ k[0, :, 0].T
    for distance in (0, 1, 30):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[:, 0].std() > 0.1


def test_training_works_after_inference_mode(make):
    model = make("llama", SPEC, **SMALL, rope_theta=777.0)
    x = torch.randint(23, (2, 32))
    with torch.inference_mode():
        model(x)
    model(x)[0].sum().backward()
    assert model.blocks[0].attention.query.weight.grad.any()


def test_hidden_dim_and_initial_weights_follow_their_rules(make):
    model = make("llama", SPEC, **(SMALL | {"dim": 200, "num_layers": 8}))
    assert model.blocks[0].feed_forward.down.in_features == 536  # 8/3 of 200 is 533.3
    assert abs(model.blocks[0].attention.query.weight.std().item() - 0.02) < 0.001
    for block in model.blocks:
        for weight in (block.attention.output.weight, block.feed_forward.down.weight):
            assert abs(weight.std().item() - 0.005) < 0.0003
        assert block.attention_norm.weight.eq(1).all()


def test_dropout_follows_the_seed_and_ends_with_training(make):
    model = make("llama", SPEC, **SMALL, dropout=0.5)
    x = torch.randint(23, (2, 32))

    def outputs(start):
        torch.manual_seed(start)
        return model(x)[0]

    assert torch.equal(outputs(0), outputs(0))
    assert not torch.equal(outputs(0), outputs(1))
    model.eval()
    assert torch.equal(outputs(0), outputs(1))


@pytest.mark.parametrize("carry_state", [True, False])
def test_carry_state_is_what_the_trainer_asks_for(make, carry_state):
    model = make("llama", SPEC, **SMALL, carry_state=carry_state)
    assert isinstance(model, Llama)
    assert model.carry_state is carry_state
    assert model.context == 32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, r"model\.dim must be at least 1, not 0"),
        ({"num_layers": 0}, r"model\.num_layers"),
        ({"num_heads": 0}, r"model\.num_heads"),
        ({"num_kv_heads": 0}, r"model\.num_kv_heads"),
        ({"hidden_dim": 0}, r"model\.hidden_dim"),
        ({"context": 0}, r"model\.context"),
        ({"num_kv_heads": 3}, r"model\.num_kv_heads=3 must divide model\.num_heads=4"),
        ({"dim": 20}, r"model\.dim=20 must be a multiple of twice model\.num_heads=4"),
        ({"dropout": 1.0}, r"model\.dropout"),
        ({"rope_theta": 0.0}, r"model\.rope_theta"),
    ],
)
def test_a_size_that_cannot_be_is_named(make, values, message):
    with pytest.raises(ConfigError, match=message):
        make("llama", SPEC, **(SMALL | values))
