"""Out of memory on a GPU or a CPU is an error of one line with advice."""

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from small_run import SMALL, difference, prepared, small

from seqbench.errors import RunError, is_out_of_memory
from seqbench.experiment import run
from seqbench.runs.run import Run
from seqbench.training.trainer import Trainer

OUT_OF_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ..."
)


def beyond_all_memory(*args, **kwargs):
    """Ask torch's CPU allocator for an exbibyte."""
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("effect", [OUT_OF_MEMORY, beyond_all_memory, MemoryError])
@pytest.mark.parametrize(("size", "parts"), [(1, 1), (7, 1), (30, 6), (32, 16)])
def test_out_of_memory_costs_one_line_with_what_to_try(size, parts, effect, tmp_path, seqbench):
    config = small(tmp_path, f"trainer.batch_size={size}", f"trainer.accumulate={parts}")
    folder = prepared(config)
    with patch.object(Trainer, "backward", side_effect=effect):
        done = seqbench("train", "--resume", folder)
    assert (done.code, done.out) == (1, "")
    last = done.err.splitlines()[-1]
    assert f"error: run {folder.name} failed: out of memory on cpu: " in last
    assert f"trainer.batch_size={size} " in last
    assert "Traceback" not in done.err
    assert Run.of(config).record.status == "failed"
    advice = re.search(r"try trainer\.accumulate=(\d+), the same batch in smaller parts", last)
    if parts == size:
        assert advice is None
    else:  # what it advises can be done
        assert parts < int(advice[1]) <= size
        assert size % int(advice[1]) == 0


def test_other_errors_are_not_out_of_memory():
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as full:
        beyond_all_memory()
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) + torch.zeros(3)
    assert is_out_of_memory(full.value)
    assert not is_out_of_memory(other.value)
    assert not is_out_of_memory(ValueError(str(full.value)))


LIMITED = """
import resource
from pathlib import Path
from seqbench.cli.main import main
from seqbench.training.trainer import Trainer

fit = Trainer.fit

def limited(*args):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 2**27
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return fit(*args)

Trainer.fit = limited
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its size as Linux has it")
def test_a_batch_that_does_not_fit_costs_one_line_with_what_to_try(tmp_path):
    """The process may grow by 128 MiB; the inputs of a batch alone take 244 MiB."""
    words = [*SMALL, "model=rnn", "task.length=1000", "task.train_size=32000"]
    words += ["trainer.batch_size=32000", "budget=smoke"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "train", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert (
        " failed: out of memory on cpu: at trainer.batch_size=32000 try trainer.accumulate=2, "
        "the same batch in smaller parts"
    ) in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("effect", [OUT_OF_MEMORY, beyond_all_memory, MemoryError])
def test_a_model_or_an_evaluation_that_does_not_fit_costs_one_line(
    effect, undisturbed, tmp_path, seqbench
):
    folder = prepared(small(tmp_path))
    with patch.object(torch.nn.Module, "to", side_effect=effect):
        done = seqbench("train", "--resume", folder)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "out of memory on device=cpu: model and data do not fit" in done.err
    with patch.object(Trainer, "evaluate", side_effect=effect):
        done = seqbench("eval", Run.of(undisturbed).folder)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: out of memory; SEQBENCH_TRACEBACK=1 shows where\n"


@pytest.mark.parametrize("effect", [OUT_OF_MEMORY, beyond_all_memory])
def test_a_checkpoint_that_does_not_fit_stays_the_last_one(effect, cut_off, copied, undisturbed):
    config = copied(cut_off)
    folder = Run.of(config).checkpoints
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (
        patch.object(torch.Tensor, "clone", side_effect=effect),
        pytest.raises(RunError, match=r"^out of memory on device=cpu"),
    ):
        run(config)
    load = "seqbench.training.state.load_optimizer_state"
    with patch(load, side_effect=effect), pytest.raises(RunError, match=r"^out of memory on dev"):
        run(config)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run(config)
    assert difference(config, undisturbed) is None


@pytest.mark.parametrize(
    "overrides",
    [
        ["task.train_size=1000000000000"],
        ["task.eval_size=1000000000000"],
        ["task=char_markov", "task.context=0", "task.train_size=1000000000000"],
    ],
)
def test_sizes_beyond_all_memory(overrides, tmp_path):
    with pytest.raises(RunError, match=r"^out of memory: the task does not fit"):
        run(small(tmp_path, *overrides))
