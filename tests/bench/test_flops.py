import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seqbench.bench import flops
from seqbench.bench.flops import peak_rates, step_flops


def test_a_gemm_and_a_copy_have_a_rate(monkeypatch):
    monkeypatch.setattr(flops, "SECONDS", 0.02)
    found = peak_rates(torch.device("cpu"), "fp32")
    # Any machine reaches a tenth of a GFLOP/s, and no CPU a PFLOP/s.
    assert 1e8 < found.flops < 1e15
    assert 1e8 < found.bandwidth < 1e13


def test_a_step_of_a_decoder_is_six_operations_per_weight_and_the_attention(loop_of):
    loop = loop_of("model=llama", "task=char_markov")
    model, read = loop.state.model, loop.task.spec.length
    batch, dim = loop.trainer.batch_size, model.embedding.weight.shape[1]
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    weights -= model.embedding.weight.numel()
    attention = 12 * len(model.blocks) * batch * read * read * dim
    assert step_flops(loop) == (6 * weights * batch * read + attention, "counted by torch")


def test_a_tcn_read_at_the_end_does_less_than_one_read_at_every_step(loop_of):
    sizes = ("model=tcn", "task.length=580", "trainer.batch_size=32", "recipe=none")
    last, every = (step_flops(loop_of(f"task={task}", *sizes))[0] for task in ("adding", "copy"))
    assert 4 < every / last < 8


@pytest.mark.parametrize(("name", "cell"), [("lstm", nn.LSTMCell), ("gru", nn.GRUCell)])
def test_a_recurrent_step_is_three_times_its_forward_pass(loop_of, name, cell):
    sizes = ("model.hidden_size=16", "task.length=40", "task.context=8")
    loop = loop_of(f"model={name}", "task=char_markov", "recipe=none", *sizes)
    loop.run_steps(1)  # the first batch of a text has no context to skip
    found, how = step_flops(loop)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x = torch.zeros(loop.trainer.batch_size, 16)
        weights = [p for p in cell(16, 16).parameters() if p.dim() == 2]
        for weight in weights:
            x @ weight.T
        loop.state.model.output(x)
    assert found == 3 * counter.get_total_flops() * (40 - 8)
    assert how.startswith("formula")


def test_a_recurrent_model_with_readout_last_computes_one_output(loop_of):
    loop = loop_of("model=lstm", "task=adding", "recipe=none")
    model, length = loop.state.model, loop.task.spec.length
    cells = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
    once = cells * length + model.output.weight.numel()
    assert step_flops(loop)[0] == 6 * once * loop.trainer.batch_size


def test_custom_recurrent_models_are_not_counted(loop_of):
    loop = loop_of("model=tcn", "task=adding")
    loop.state.model.hidden = nn.LSTM(1, 1)
    assert step_flops(loop) is None


def test_a_failed_count_leaves_the_trainer_as_it_was(loop_of, monkeypatch):
    loop = loop_of("model=tcn", "task=adding", "trainer.graph=true")
    before = vars(loop.trainer).copy()

    def fails(x, state=None, context=0):
        raise ValueError("no such step")

    monkeypatch.setattr(loop.state.model, "forward", fails)
    with pytest.raises(ValueError, match="no such step"):
        step_flops(loop)
    assert vars(loop.trainer) == before
