import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seqbench.bench.ceilings import ceilings, step_flops
from seqbench.bench.loops import TrainerLoop


def test_a_product_of_matrices_and_a_copy_have_a_rate():
    found = ceilings(torch.device("cpu"), "fp32")
    # Any machine does a tenth of a GFLOP/s, and none on a CPU a petaflop/s.
    assert 1e8 < found.flops < 1e15
    assert 1e8 < found.bandwidth < 1e13


def test_a_decoders_step_is_six_operations_a_weight_and_the_attention(small):
    loop = TrainerLoop(small("model=llama", "task=char_markov"))
    model, read = loop.experiment.state.model, loop.experiment.config["task"]["length"]
    batch, dim = loop.trainer.batch_size, model.embedding.weight.shape[1]
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    weights -= model.embedding.weight.numel()
    attention = 12 * len(model.blocks) * batch * read * read * dim
    assert step_flops(loop) == (6 * weights * batch * read + attention, "counted by torch")


def test_a_tcn_read_at_the_end_does_less_than_one_read_at_every_step(small):
    sizes = ("model=tcn", "task.length=580", "trainer.batch_size=32", "recipe=none")
    last, every = (
        step_flops(TrainerLoop(small(f"task={task}", *sizes)))[0] for task in ("adding", "copy")
    )
    assert 4 < every / last < 8


@pytest.mark.parametrize(("name", "cell"), [("lstm", nn.LSTMCell), ("gru", nn.GRUCell)])
def test_a_recurrent_step_is_what_its_cells_do_thrice(small, name, cell):
    loop = TrainerLoop(small(f"model={name}", "task=char_markov", "recipe=none"))
    model = loop.experiment.state.model
    loop.steps(1)
    length, batch = loop.experiment.config["task"]["length"], loop.trainer.batch_size
    found, how = step_flops(loop)
    width = model.output.weight.shape[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x = torch.zeros(batch, width)
        x @ torch.zeros(
            width, sum(p.numel() for p in cell(width, width).parameters() if p.dim() == 2) // width
        )
        model.output(x)
    read = length - loop.experiment.config["task"]["context"]
    assert found == 3 * counter.get_total_flops() * read
    assert how.startswith("formula")


def test_recurrent_networks_of_the_users_are_not_counted(small):
    loop = TrainerLoop(small("model=tcn", "task=adding"))
    loop.experiment.state.model.hidden = nn.LSTM(1, 1)
    assert step_flops(loop) is None
