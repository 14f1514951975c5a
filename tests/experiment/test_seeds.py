"""Several seeds trained as one model are the runs that each would be alone."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from seqbench.config.compose import compose
from seqbench.errors import ConfigError, Interrupted, RunError
from seqbench.experiment import run
from seqbench.experiment.seeds import run_seeds
from seqbench.runs.log import headline
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training import checkpoint
from seqbench.training.trainer import Trainer

HOLD = """
import sys
from pathlib import Path
from seqbench.runs.run import Run
with Run(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""
SMALL = ["budget=smoke", "device=cpu", "threads=1", "trainer.steps=12", "trainer.eval_every=4"]
TCN = ["model=tcn", "model.channels=[6,6,6]", "model.kernel_size=3", "model.dropout=0"]
LLAMA = ["model=llama", "model.dim=16", "model.hidden_dim=24"]
LLAMA += ["model.num_heads=2", "model.num_layers=2"]
XL = ["model=transformer_xl", "model.dim=16", "model.num_heads=2", "model.num_layers=2"]
HYBRID = ["model=tcn_attention", "model.channels=[8,8]", "model.kernel_size=3"]
CASES = {
    "at the last step": [*TCN, "task=adding", "optimizer=adam", "trainer.clip=0.05"],
    "at every step": [*TCN, "task=copy", "optimizer=rmsprop"],
    "tokens": [*TCN, "task=char_markov", "optimizer=sgd", "optimizer.momentum=0.9"],
    "attention": [*LLAMA, "task=adding", "optimizer=adamw", "schedule=cosine"],
    "text": [*LLAMA, "task=char_markov", "optimizer=adagrad", "trainer.clip=0.1"],
    "relative positions": [*XL, "task=adding", "optimizer=adam"],
    "levels and attention": [*HYBRID, "task=char_markov", "optimizer=adam"],
    "watching test": [*TCN, "task=adding", "trainer.watch=test", "trainer.steps=16"],
}


def composed(case, folder, *more):
    return compose([*SMALL, *CASES[case], *more, f"output_dir={folder}"])


def together(config, seeds=(0, 1, 2), **again):
    configs = [config | {"seed": seed} for seed in seeds]
    return run_seeds(configs, lambda one, shown: Observer(), **again)


def events(config):
    return list(map(json.loads, Run.of(config).events_path.read_text().splitlines()))


def saved(config):
    tensors, _ = checkpoint.load(Run.of(config).checkpoints / checkpoint.LAST)
    return {k: v for k, v in tensors.items() if not k.startswith("random")}


def assert_alike(tensors, others, tolerance):
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        scale = tensor.abs().max().clamp(min=1e-3)
        assert (tensor - others[name]).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("case", CASES)
def test_each_seed_is_the_run_that_it_is_alone(case, tmp_path):
    config, other = composed(case, tmp_path / "together"), composed(case, tmp_path / "alone")
    seeds = range(3 if case == "at the last step" else 2)
    records = together(config, seeds)
    for seed, record in zip(seeds, records, strict=True):
        one, alone = config | {"seed": seed}, other | {"seed": seed}
        expected = run(alone)
        assert record.run_id == expected.run_id
        assert record.seed == seed
        assert record.status == "completed"
        assert record.score.value == pytest.approx(expected.score.value, rel=1e-4)
        assert record.tokens == expected.tokens
        assert record.measured["seeds_together"] == len(seeds)
        assert "seeds_together" not in expected.measured
        assert_alike(saved(alone), saved(one), 1e-4)
        for mine, theirs in zip(events(one), events(alone), strict=True):
            assert mine.pop("split") == theirs.pop("split")
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert len({record.score.value for record in records}) == len(seeds)


def test_who_watches_is_told_how_many_are_trained_together(tmp_path):
    class Watch(Observer):
        def started(self, facts):
            told.append(headline(facts)[0])

    told = []
    config = composed("at the last step", tmp_path)
    run_seeds([config | {"seed": seed} for seed in (0, 1)], lambda *_: Watch())
    assert "seed 0, one of 2 trained as one model: " in told[0]
    run(composed("at the last step", tmp_path) | {"seed": 2}, Watch())
    assert "seed 2: " in told[-1]


def test_what_is_done_is_not_done_again(tmp_path):
    config = composed("at the last step", tmp_path)
    alone = run(config | {"seed": 1})
    records = together(config)
    assert records[1] == alone
    assert [r.measured.get("seeds_together") for r in records] == [2, None, 2]
    assert together(config) == records


def stopped_at(step):
    """Return an interruption that the trainer polls once a step."""
    asked = iter(range(1, 10**6))
    return lambda: signal.SIGTERM if next(asked) == step else 0


def cut(monkeypatch, config, step):
    """Stop all seeds after a step."""

    @contextmanager
    def signals():
        yield stopped_at(step)

    with monkeypatch.context() as patch:
        patch.setattr("seqbench.experiment.seeds.signals", signals)
        with pytest.raises(Interrupted) as stop:
            together(config)
    assert stop.value.signal == signal.SIGTERM


@pytest.mark.parametrize("case", ["at the last step", "text"])
def test_cut_and_continued_together_they_end_bit_for_bit_the_same(case, tmp_path, monkeypatch):
    dropout = "model.dropout=0.2"  # the generator's state must be put back, too
    config = composed(case, tmp_path / "cut", dropout)
    whole = composed(case, tmp_path / "whole", dropout)
    cut(monkeypatch, config, 5)
    cut(monkeypatch, config, 2)
    for record, expected in zip(together(config), together(whole), strict=True):
        assert record.metrics == expected.metrics
        seed = {"seed": record.seed}
        assert_alike(saved(whole | seed), saved(config | seed), 0)
        assert events(whole | seed) == events(config | seed)


def test_a_seed_that_was_cut_off_among_others_goes_on_alone(tmp_path, monkeypatch):
    config, other = composed("attention", tmp_path / "a"), composed("attention", tmp_path / "b")
    cut(monkeypatch, config, 5)
    record = run(config | {"seed": 1})
    assert record.score.value == pytest.approx(run(other | {"seed": 1}).score.value, rel=1e-4)
    # The others stand where they were, and one that was never begun joins them.
    records = together(config, (0, 1, 2, 3))
    assert [r.measured.get("seeds_together") for r in records] == [2, None, 2, None]
    assert records[3].score.value == pytest.approx(run(other | {"seed": 3}).score.value, rel=1e-4)


def test_while_one_is_held_elsewhere_none_is_touched(tmp_path):
    config = composed("at the last step", tmp_path)
    records = together(config)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(Run.of(config | {"seed": 1}).folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="is being trained by"):
            together(config, force=True)
    finally:
        other.communicate()
    assert together(config) == records


def test_what_hangs_on_the_seed_is_refused(tmp_path):
    config = composed("at the last step", tmp_path)
    model = config["model"] | {"kernel_size": 4}
    with pytest.raises(ConfigError, match="differ in more than the seed"):
        run_seeds([config, config | {"seed": 1, "model": model}], lambda one, shown: Observer())


def test_one_that_is_due_is_shown_and_times_add_up(tmp_path):
    config = composed("at the last step", tmp_path)
    run(config)
    shown = []

    def observer(one, is_shown):
        shown.extend([one["seed"]] * is_shown)
        return Observer()

    begin = time.perf_counter()
    records = run_seeds([config | {"seed": seed} for seed in range(4)], observer)
    took = time.perf_counter() - begin
    assert shown == [1]
    assert 0 < sum(record.measured["seconds"] for record in records[1:]) < took


def test_one_that_diverges_does_not_end_the_others(tmp_path, monkeypatch):
    config, other = (composed("at the last step", tmp_path / name) for name in "ab")
    after_step = Trainer.after_step

    def poisoned(self, training, *rest):
        if training.task.seed == 0 and training.state.progress.step == 6:
            with torch.no_grad():
                next(training.state.model.parameters()).fill_(float("nan"))
        after_step(self, training, *rest)

    monkeypatch.setattr(Trainer, "after_step", poisoned)
    records = together(config)
    assert [record.status for record in records] == ["diverged", "completed", "completed"]
    assert [record.steps for record in records] == [8, 12, 12]  # the next evaluation finds it
    monkeypatch.undo()
    assert records[2].score.value == pytest.approx(run(other | {"seed": 2}).score.value, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["trainer.accumulate=2"], "trainer.accumulate"),
        (["trainer.stop_when_solved=true"], "trainer.stop_when_solved"),
        (["trainer.precision=fp16"], "fp16"),
        (["schedule=plateau"], "plateau"),
        (["model=lstm"], "carries state"),
        (["optimizer._target_=torch.optim.Rprop"], "Rprop"),
    ],
)
def test_what_cannot_be_one_model_is_refused_before_anything_is_written(words, what, tmp_path):
    words = [*SMALL, "task=adding", "model=tcn", "recipe=none", *words]
    with pytest.raises(ConfigError, match=what):
        together(compose([*words, f"output_dir={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def out_of_cuda_memory(*arguments):
    raise torch.OutOfMemoryError


def out_of_cpu_memory(*arguments):
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("full", [out_of_cuda_memory, out_of_cpu_memory])
def test_seeds_that_do_not_fit_are_said_to_be_too_many(full, tmp_path, monkeypatch):
    monkeypatch.setattr("seqbench.training.together.fit", full)
    config = composed("at the last step", tmp_path)
    with pytest.raises(RunError, match="3 seeds at once do not fit"):
        together(config)
    assert Run.of(config | {"seed": 0}).record is None
