"""The recurrent models agree with those of torch; gates start as their options say."""

import math
from contextlib import nullcontext

import pytest
import torch

from seqbench import kernels
from seqbench.errors import ConfigError
from seqbench.models.rnn import GRU, LSTM, RNN
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

KINDS = {"lstm": (LSTM, torch.nn.LSTM), "gru": (GRU, torch.nn.GRU), "rnn": (RNN, torch.nn.RNN)}
EVERY = SequenceSpec(Features(3), Classes(4), "every", 20)


def joined(state):
    """Return a state as torch has it: each part as a tensor (layers, batch, hidden)."""
    return [torch.stack(parts) for parts in zip(*state, strict=True)]


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_equals_one_multi_layer_module_of_torch_whole_and_in_segments(make, name, num_layers):
    torch.manual_seed(0)
    model = make(name, EVERY, hidden_size=7, num_layers=num_layers).double()
    assert type(model) is KINDS[name][0]
    reference = KINDS[name][1](3, 7, num_layers, batch_first=True).double()
    for i, layer in enumerate(model.layers):
        for key, value in layer.state_dict().items():
            reference.get_parameter(key.replace("l0", f"l{i}")).data = value
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    h, after = reference(x)
    expected = model.output(h)

    output, state = model(x)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    after = after if name == "lstm" else (after,)
    for ours, theirs in zip(joined(state), after, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    state, parts = None, []
    for segment in x.split([4, 1, 9, 6], 1):
        output, state = model(segment, state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_readout_last_is_the_last_step_of_every(make, name):
    last = SequenceSpec(Features(3), Classes(4), "last", 20)
    sizes = {"hidden_size": 6, "num_layers": 2}
    one, all_steps = make(name, last, **sizes), make(name, EVERY, **sizes)
    one.load_state_dict(all_steps.state_dict())
    x = torch.randn(2, 20, 3)
    torch.testing.assert_close(one(x)[0], all_steps(x)[0][:, -1])


@pytest.fixture
def flushed():
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


# Gradients that vanish in 600 steps, and some that do not.
@pytest.mark.parametrize(
    ("dtype", "error", "compiled", "steps", "forget_bias"),
    [
        (torch.float64, 1e-10, True, 600, -1.0),
        (torch.float64, 1e-10, False, 200, 4.0),
        (torch.float32, 1e-5, True, 200, 4.0),
        (torch.float32, 1e-5, False, 600, -1.0),
    ],
)
@pytest.mark.parametrize("name", KINDS)
def test_the_loss_at_the_end_has_the_gradients_of_torch(
    make, flushed, name, dtype, error, compiled, steps, forget_bias
):
    torch.manual_seed(0)
    gated = {} if name == "rnn" else {"forget_bias": forget_bias}
    spec = SequenceSpec(Features(2), Values(1), "last", steps)
    ours = make(name, spec, hidden_size=20, **gated).to(dtype)
    theirs = KINDS[name][1](2, 20, batch_first=True).to(dtype)
    theirs.load_state_dict(ours.layers[0].state_dict())
    x = torch.randn(3, steps, 2, dtype=dtype, requires_grad=True)
    before = torch.randn(3, 20, dtype=dtype, requires_grad=True)
    state = (before, before) if name == "lstm" else (before,)
    stacked = (before[None], before[None]) if name == "lstm" else before[None]

    with nullcontext() if compiled else kernels.disabled():
        found, _ = ours(x, (state,))
    expected = ours.output(theirs(x, stacked)[0][:, -1])
    assert (found - expected).abs().max() <= error * expected.abs().max()
    gradients = torch.autograd.grad(
        found.sum(), [x, before, *ours.layers.parameters()], materialize_grads=True
    )
    for ours_, theirs_ in zip(
        gradients,
        torch.autograd.grad(expected.sum(), [x, before, *theirs.parameters()]),
        strict=True,
    ):
        assert (ours_ - theirs_).abs().max() <= error * theirs_.abs().max()


@torch.no_grad()
def kept(model):
    """Return the share of each unit's memory that one step keeps, with all weights at zero."""
    for name, parameter in model.layers.named_parameters():
        if "weight" in name:
            parameter.zero_()
    weight = model.output.weight
    x, zeros = weight.new_zeros(1, 1, 3), weight.new_zeros(1, model.output.in_features)
    memories = []
    for memory in (zeros, zeros + 1):
        _, state = model(x, ((zeros, memory) if isinstance(model, LSTM) else (memory,),))
        memories.append(state[0][-1][0])
    # A step is affine in what is remembered; the slope is the gate.
    return memories[1] - memories[0]


@pytest.mark.parametrize("bias", [-2.0, 0.5, 3.0])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_forget_bias_makes_each_unit_keep_its_sigmoid(make, name, bias):
    gate = kept(make(name, EVERY, hidden_size=5, forget_bias=bias))
    torch.testing.assert_close(gate, torch.full((5,), 1 / (1 + math.exp(-bias))))


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_forget_bias_reaches_every_layer_and_no_other_gate(make, name):
    torch.manual_seed(0)
    plain = make(name, EVERY, hidden_size=5, num_layers=2)
    torch.manual_seed(0)
    model = make(name, EVERY, hidden_size=5, num_layers=2, forget_bias=4.0)
    for layer, other in zip(model.layers, plain.layers, strict=True):
        total = layer.bias_ih_l0 + layer.bias_hh_l0
        differs = (total != other.bias_ih_l0 + other.bias_hh_l0).view(-1, 5)
        assert differs.any(1).sum() == 1
        assert total.view(-1, 5)[differs.all(1)].eq(4.0).all()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_chrono_spreads_memory_over_two_to_t_max_steps(make, name):
    torch.manual_seed(0)
    spans = 1 / (1 - kept(make(name, EVERY, hidden_size=2000, chrono=100).double()))
    # log U(1, 99) as the gate's bias: the span 1 + exp(bias) is uniform from 2 to 100 steps.
    assert 1.99 < spans.min() < 3
    assert 99 < spans.max() < 100.1
    assert abs(spans.mean().item() - 51) < 2


def test_chrono_starts_the_lstms_input_gate_as_the_complement(make):
    model = make("lstm", EVERY, hidden_size=6, chrono=50)
    keeps = kept(model)
    layer = model.layers[0]
    candidate = (layer.bias_ih_l0 + layer.bias_hh_l0).view(4, 6)[2].tanh()
    _, ((_, cell),) = model(torch.zeros(1, 1, 3), ((torch.zeros(1, 6), torch.zeros(1, 6)),))
    torch.testing.assert_close(cell[0], (1 - keeps) * candidate)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_forget_bias_and_chrono_exclude_each_other(make, name):
    with pytest.raises(ConfigError, match=r"model\.forget_bias and model\.chrono"):
        make(name, EVERY, forget_bias=1.0, chrono=100)


@pytest.mark.parametrize("name", KINDS)
def test_all_weights_start_uniformly_within_a_range_but_for_set_biases(make, name):
    spec = SequenceSpec(Tokens(50), Classes(4), "every", 20)
    model = make(name, spec, hidden_size=30, init_uniform=0.1)
    values = torch.cat([weight.flatten() for weight in model.parameters()])
    assert values.abs().max() <= 0.1
    assert abs(values.std().item() - 0.1 / math.sqrt(3)) < 0.002
    assert model.embedding.weight.std() > 0.05 < model.output.weight.std()
    if name != "rnn":
        layer = make(name, spec, hidden_size=30, init_uniform=0.1, forget_bias=4.0).layers[0]
        assert (layer.bias_ih_l0 == 4.0).sum() == 30


@pytest.mark.parametrize(
    ("start", "low", "high"),
    [("orthogonal", 0.99, 1.0), ("identity", 0.99, 1.0), (None, 0.0, 1e-4)],
)
def test_a_small_state_of_the_rnn_fades_unless_recurrent_init_is_given(make, start, low, high):
    torch.manual_seed(0)
    model = make("rnn", EVERY, hidden_size=40, num_layers=2, recurrent_init=start).double()
    before = 1e-3 * torch.randn(1, 40, dtype=torch.float64)
    zeros = torch.zeros_like(before)
    x = torch.zeros(1, 20, 3, dtype=torch.float64)
    (_, (moved,)), (_, (rested,)) = (model(x, ((zeros,), (h,)))[1] for h in (before, zeros))
    assert low <= (moved - rested).norm() / before.norm() <= high
    eye, weights = torch.eye(40).double(), [layer.weight_hh_l0 for layer in model.layers]
    assert [torch.equal(weight, eye) for weight in weights] == [start == "identity"] * 2


def test_recurrent_init_and_init_uniform_exclude_each_other(make):
    with pytest.raises(ConfigError, match=r"model\.recurrent_init and model\.init_uniform"):
        make("rnn", EVERY, recurrent_init="identity", init_uniform=0.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("num_layers", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("embedding_dim", 0),
        ("chrono", 2),
        ("init_uniform", 0.0),
    ],
)
def test_a_size_that_cannot_be_is_named(make, key, value):
    spec = SequenceSpec(Tokens(5), Classes(4), "every", 20)
    with pytest.raises(ConfigError, match=rf"^model\.{key} .*{value}"):
        make("lstm", spec, **{key: value})


def test_tied_weights_need_an_embedding_as_wide_as_the_state(make):
    spec = SequenceSpec(Tokens(5), Classes(5), "every", 20)
    model = make("gru", spec, hidden_size=8, tied=True)
    assert model.output.weight is model.embedding.weight
    with pytest.raises(ConfigError, match=r"model\.tied"):
        make("gru", spec, hidden_size=8, embedding_dim=6, tied=True)
    with pytest.raises(ConfigError, match=r"model\.tied"):
        make("gru", EVERY, hidden_size=8, tied=True)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_dropout_follows_the_seed_and_ends_with_training(make, num_layers):
    model = make("lstm", EVERY, hidden_size=9, num_layers=num_layers, dropout=0.5)
    x = torch.randn(2, 20, 3)

    def outputs(start):
        torch.manual_seed(start)
        return model(x)[0]

    assert torch.equal(outputs(0), outputs(0))
    assert not torch.equal(outputs(0), outputs(1))
    model.eval()
    assert torch.equal(outputs(0), outputs(1))


def test_dropout_stands_between_layers_and_leaves_the_recurrence_alone(make):
    model = make("lstm", EVERY, hidden_size=9, num_layers=2, dropout=0.5)
    x = torch.randn(2, 20, 3)
    _, trained = model(x)
    _, evaluated = model.eval()(x)
    for part in (0, 1):
        assert torch.equal(trained[0][part], evaluated[0][part])
        assert not torch.equal(trained[1][part], evaluated[1][part])
