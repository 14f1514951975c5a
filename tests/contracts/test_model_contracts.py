"""Packaged models keep the contracts; for each contract, a faulty model breaks it."""

import random

import pytest
import torch
from torch import nn

from seqbench.config.build import build
from seqbench.config.choices import choices_of, read_choice
from seqbench.contracts.model import check_model
from seqbench.errors import ConfigError
from seqbench.models.sequence_model import SequenceModel
from seqbench.spec import Tokens

SHAPE = "outputs have the expected shape"
CAUSAL = "is causal"
GRADIENTS = "every parameter gets a gradient"
STATE_DICT = "the state dict is complete"
SEED = "is deterministic for a seed"
SEGMENTS = "segments with carried state match one pass"
CONTEXT = "skipping the context changes no output"
PADDING = "padding changes no output"


def broken(results):
    """Return the messages of the broken contracts, by name."""
    return {result.name: result.message for result in results if result.passed is False}


@pytest.mark.parametrize("name", choices_of("model"))
def test_our_models_hold_every_contract(name):
    results = list(
        check_model(lambda spec: build("model", {"model": read_choice("model", name)}, spec))
    )
    assert len(results) == 9
    assert broken(results) == {}
    # And take every kind of task, but for the linear forecasting models.
    assert results[0].message.startswith("not for 8 of 9 kinds" if "linear" in name else "")


class Running(nn.Module):
    """A causal model to break: a linear layer, a running mean, a linear layer."""

    def __init__(self, spec):
        super().__init__()
        if isinstance(spec.input, Tokens):
            raise ConfigError("not for tokens")
        self.every = spec.readout == "every"
        self.first = nn.Linear(spec.input.dim, 8)
        self.last = nn.Linear(8, spec.output_dim)

    def forward(self, x):
        h = self.first(x).tanh()
        steps = torch.arange(1, x.shape[1] + 1)[:, None]
        outputs = self.last(h.cumsum(1) / steps)
        return outputs if self.every else outputs[:, -1]


class Heedless(SequenceModel):
    takes_lengths = True

    def __init__(self, spec):
        super().__init__()
        self.inner = Running(spec)

    def forward(self, x, state=None, context=0, lengths=None):
        return self.inner(x), None


class Clairvoyant(Running):
    def forward(self, x):
        outputs = super().forward(x)
        return (
            outputs + 1e-3 * x.flip(1).cumsum(1).flip(1).mean(-1, True) if self.every else outputs
        )


class OneStepAhead(Running):
    def forward(self, x):
        return super().forward(x.roll(-1, 1))


class NormalisedOverTime(Running):
    def forward(self, x):
        return super().forward((x - x.mean(1, True)) / x.std(1, keepdim=True))


class AlwaysEvery(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.every = True


class NotFinite(Running):
    def forward(self, x):
        return super().forward(x) / 0


class Unused(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.forgotten = nn.Linear(3, 3)


class CutOff(Running):
    def forward(self, x):
        h = self.first(x).tanh().detach()
        return self.last(h if self.every else h[:, -1])


class Unregistered(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.hidden = [nn.Linear(spec.input.dim, spec.input.dim)]

    def forward(self, x):
        return super().forward(self.hidden[0](x))


class OwnSeed(Running):
    def __init__(self, spec):
        super().__init__(spec)
        self.first.weight.data.normal_(generator=torch.Generator().manual_seed(torch.seed()))


class NoisyInEvaluation(Running):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.1, training=True))


class WritesToInput(Running):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


class Carrying(Running, SequenceModel):
    """As `Running`, with the sum and the number of steps so far as its state."""

    has_state = carry_state = True

    def forward(self, x, state=None, context=0):
        h = self.first(x).tanh()
        total, count = (h.new_zeros(len(h), 8), h.new_zeros(len(h), 1)) if state is None else state
        totals = h.cumsum(1) + total[:, None]
        counts = torch.arange(1, x.shape[1] + 1)[:, None] + count[:, None]
        outputs = self.last(totals / counts)
        return (outputs if self.every else outputs[:, -1]), (totals[:, -1], counts[:, -1])


class Forgetful(Carrying):
    def forward(self, x, state=None, context=0):
        return super().forward(x)


class BatchSecond(Carrying):
    def forward(self, x, state=None, context=0):
        state = None if state is None else (state[0][0], state[1][0])
        output, state = super().forward(x, state)
        return output, (state[0][None], state[1][None])


class DictState(Carrying):
    def forward(self, x, state=None, context=0):
        state = None if state is None else (state["sum"], state["count"])
        output, state = super().forward(x, state)
        return output, {"sum": state[0], "count": state[1]}


class StateForgotten(Running, SequenceModel):
    has_state = True

    def forward(self, x, state=None, context=0):
        return super().forward(x)


class Skipping(Running, SequenceModel):
    """As `Running`, without answers in the context."""

    skips_context = True

    def forward(self, x, state=None, context=0):
        outputs = super().forward(x)
        return (outputs[:, context:] if self.every else outputs), None


class Blind(Skipping):
    def forward(self, x, state=None, context=0):
        return super().forward(x[:, context:])


class Deaf(Skipping):
    def forward(self, x, state=None, context=0):
        return super().forward(x)


class Both(Carrying):
    skips_context = True


class Undeclared(Running):
    def forward(self, x):
        return super().forward(x), None


class NotDerived(Running):
    carry_state = True


@pytest.mark.parametrize("model", [Running, Carrying, Skipping])
def test_the_models_that_are_broken_below_hold_whole(model):
    results = list(check_model(model))
    assert broken(results) == {}
    assert "not for 4 of 9 kinds of task" in results[0].message
    assert "not for tokens" in results[0].message


@pytest.mark.parametrize(
    ("model", "contract", "message"),
    [
        (Clairvoyant, CAUSAL, "sees the future: the output at step 0 moved by"),
        (OneStepAhead, CAUSAL, "sees the future"),
        (NormalisedOverTime, CAUSAL, "sees the future"),
        (AlwaysEvery, SHAPE, r"readout last: the output is (3, 37, 11), not (3, 11)"),
        (NotFinite, SHAPE, "not finite"),
        (Unused, GRADIENTS, "no gradient reaches forgotten.weight, forgotten.bias"),
        (CutOff, GRADIENTS, "no gradient reaches first.weight, first.bias"),
        (Unregistered, STATE_DICT, "not registered"),
        (OwnSeed, SEED, "first.weight starts differently"),
        (NoisyInEvaluation, SEED, "the same input twice gives different outputs"),
        (WritesToInput, SEED, "writes to its input"),
        (Forgetful, SEGMENTS, "differ by"),
        (BatchSecond, SEGMENTS, "the first dimension of the state's tensors must be the batch"),
        (DictState, SEGMENTS, "here is a dict"),
        (StateForgotten, SHAPE, "must return (output, state)"),
        (Blind, CONTEXT, "after a context of 1 steps, outputs differ by"),
        (Deaf, CONTEXT, "with a context of 1 steps the output is (3, 37, 11), not (3, 36, 11)"),
        (Both, CONTEXT, "it has has_state and skips_context"),
        (Undeclared, SHAPE, "forward returned a tuple, expected a tensor"),
        (Heedless, PADDING, "with readout last, padding on the right changes outputs by"),
    ],
)
def test_a_broken_model_is_told_what_it_breaks(model, contract, message):
    assert message in broken(check_model(model))[contract]


def test_what_a_model_does_not_do_is_not_asked():
    results = {result.name: result for result in check_model(Running)}
    assert [name for name, result in results.items() if result.passed is None] == [
        SEGMENTS,
        CONTEXT,
        PADDING,
    ]
    assert "the model has no state" in results[SEGMENTS].message
    (skipping,) = (r for r in check_model(Skipping) if r.name == CONTEXT)
    assert skipping.passed


def test_an_error_is_told_once_and_with_its_place():
    class Raises(Running):
        def forward(self, x):
            return super().forward(x[..., :1])

    found = broken(check_model(Raises))
    assert "test_model_contracts.py:" in found[SHAPE]
    assert {found[name] for name in (GRADIENTS, SEED)} == {"as above"}


def test_an_error_within_python_is_told_with_the_place_that_called_it():
    class Raises(Running):
        def forward(self, x):
            random.choice([])

    assert "test_model_contracts.py:" in broken(check_model(Raises))[SHAPE]


def test_a_model_for_the_last_step_alone_is_not_asked_about_the_future():
    class Last(Running):
        def __init__(self, spec):
            super().__init__(spec)
            if self.every:
                raise ConfigError("for the last step alone")

    (causal,) = (result for result in check_model(Last) if result.name == CAUSAL)
    assert (causal.passed, causal.message) == (None, "it answers at the last step alone")


def test_a_model_that_gives_no_numbers_is_not_blamed_for_more():
    class NotANumber(Running):
        def forward(self, x):
            return super().forward(x) * float("nan")

    found = broken(check_model(NotANumber))
    assert found.keys() == {SHAPE, CAUSAL, GRADIENTS}
    assert "nothing can be seen to move" in found[CAUSAL]


def test_a_zero_gate_at_the_start_is_no_dead_parameter():
    class Gate(Running):
        def __init__(self, spec):
            super().__init__(spec)
            nn.init.zeros_(self.last.weight)

    assert broken(check_model(Gate)) == {}


def test_a_model_that_cannot_be_built_is_one_result():
    def fails(spec):
        raise AttributeError("no vocab_size")

    def refuses(spec):
        raise ConfigError("model.hidden_size must be at least 1")

    (result,) = check_model(fails)
    assert "raised AttributeError: no vocab_size" in result.message
    assert "ConfigError" in result.message
    (result,) = check_model(refuses)
    assert "refuses every kind of task: model.hidden_size" in result.message
