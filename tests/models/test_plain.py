import pytest
import torch

from seqbench.config.build import build
from seqbench.config.choices import choices_of, read_choice
from seqbench.errors import ConfigError
from seqbench.export.graph import zero_state
from seqbench.models.plain import PLAIN, build_plain
from seqbench.spec import Classes, Features, SequenceSpec, Tokens, Values

LENGTH = 40
FEATURES_LAST = SequenceSpec(Features(2), Values(1), "last", LENGTH)
FORECAST = SequenceSpec(Features(2), Values(6, steps=3), "last", LENGTH)
TOKENS_EVERY = SequenceSpec(Tokens(7), Classes(7), "every", LENGTH)
SETTINGS = [
    ("tcn", {"channels": [6, 6, 6, 6], "kernel_size": 3}),
    ("tcn", {"channels": [4, 7, 5], "kernel_size": 8, "embedding_dim": 3}),
    ("lstm", {"hidden_size": 9, "num_layers": 2}),
    ("gru", {"hidden_size": 9, "num_layers": 2, "embedding_dim": 4}),
    ("rnn", {"hidden_size": 9}),
    ("llama", {"dim": 12, "num_layers": 2, "num_heads": 3, "hidden_dim": 20}),
    ("llama", {"dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "context": 7}),
    ("transformer_xl", {"dim": 12, "num_layers": 2, "num_heads": 3, "hidden_dim": 20}),
    ("tcn_attention", {"channels": [6, 8], "kernel_size": 3, "attention_layers": 2}),
    ("tcn_attention", {"channels": [6, 8], "kernel_size": 3, "attention": False}),
]


def pair(name, spec, **values):
    """Return the model and its plain form, built from the same seed."""
    node = read_choice("model", name) | values
    models = []
    for make in (lambda: build("model", {"model": node}, spec), lambda: build_plain(node, spec)):
        torch.manual_seed(0)
        models.append(make())
    return models


def inputs(spec):
    if isinstance(spec.input, Features):
        return torch.randn(3, spec.length, spec.input.dim, dtype=torch.get_default_dtype())
    return torch.randint(spec.input.vocab_size, (3, spec.length))


def outputs_and_gradients(model, x):
    y, _ = model(x)
    y.square().sum().backward()
    return {"outputs": y} | {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def tolerance(request):
    """Compute in a dtype; return the relative error of its rounding."""
    torch.set_default_dtype(request.param)
    yield 1e-5 if request.param == torch.float32 else 1e-10
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("spec", [FEATURES_LAST, TOKENS_EVERY], ids=["last", "every"])
@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_plain_models_compute_the_same_function(tolerance, name, values, spec):
    model, plain = pair(name, spec, **values)
    x = inputs(spec)
    found, expected = outputs_and_gradients(plain, x), outputs_and_gradients(model, x)
    assert found.keys() == expected.keys()
    largest = max(value.abs().max().item() for value in expected.values())
    for key, value in expected.items():
        # A small gradient is the difference of larger ones: that of keys before training.
        atol = tolerance * max(value.abs().max().item(), largest / 100)
        torch.testing.assert_close(found[key], value, rtol=0, atol=atol, msg=key)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "llama", "transformer_xl"])
def test_a_plain_state_can_be_carried(name):
    attends = name in ("llama", "transformer_xl")
    sizes = {"dim": 8, "num_heads": 2} if attends else {"hidden_size": 9}
    _, plain = pair(name, TOKENS_EVERY, num_layers=2, **sizes)
    x = inputs(TOKENS_EVERY)
    first, state = plain(x[:, :25])
    second, _ = plain(x[:, 25:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), plain(x)[0])


@pytest.mark.parametrize(("name", "values"), SETTINGS[:2])
@pytest.mark.parametrize("spec", [FEATURES_LAST, TOKENS_EVERY], ids=["last", "every"])
def test_buffers_of_a_plain_tcn_continue_the_sequence(name, values, spec):
    _, plain = pair(name, spec, **values)
    x, random = inputs(spec), torch.Generator().manual_seed(0)
    for most in (1, 3, 40):
        state, answers, left = zero_state(plain, name, 3), [], LENGTH
        while left:
            size = min(left, int(torch.randint(1, most + 1, (), generator=random)))
            answer, state = plain(x[:, LENGTH - left : LENGTH - left + size], state)
            answers.append(answer)
            left -= size
        whole = plain(x)[0]
        found = torch.cat(answers, 1) if spec.readout == "every" else answers[-1]
        torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("name", choices_of("model"))
def test_no_compiled_code_runs_in_a_plain_model(name, monkeypatch):
    spec = FORECAST if "linear" in name else TOKENS_EVERY
    model = build_plain(read_choice("model", name), spec)
    monkeypatch.setattr("seqbench.kernels.ops.library", lambda *_: pytest.fail("compiled"))
    model(inputs(spec))


def test_a_custom_model_has_no_plain_form():
    assert "my_model.Mean" not in PLAIN
    with pytest.raises(ConfigError, match=r"not my_model\.Mean"):
        build_plain({"_target_": "my_model.Mean"}, FEATURES_LAST)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("name", ["tcn", "gru", "llama", "transformer_xl", "tcn_attention"])
def test_a_plain_model_reads_sequences_of_different_length(name, readout):
    values = dict(SETTINGS)[name] if name != "gru" else {"hidden_size": 9}
    spec = SequenceSpec(Features(2), Classes(3), readout, LENGTH, variable_length=True)
    model, plain = (one.eval() for one in pair(name, spec, **values))
    x, lengths = inputs(spec), torch.tensor([LENGTH, 7, 1])
    with torch.no_grad():
        (ours, _), (theirs, _) = model(x, None, 0, lengths), plain(x, None, 0, lengths)
    assert torch.allclose(ours, theirs, atol=1e-5)
