"""A training run that is interrupted and resumed gives the same bits."""

import random
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.errors import Interrupted
from seqbench.experiment.build import build_model, build_task
from seqbench.runs.events import EventLog
from seqbench.runs.observer import Observer
from seqbench.training import checkpoint
from seqbench.training.training import Training

STEPS = 13
# None of the intervals divides another: a cut may fall between any two of them.
COMMON = [
    f"trainer.steps={STEPS}",
    "trainer.batch_size=4",
    "trainer.log_every=2",
    "trainer.eval_every=3",
    "trainer.checkpoint_every=5",
    "recipe=none",
    "seed=3",
]
# Five steps make an epoch of each task.
ADDING = ["task=adding", "task.length=12", "task.train_size=20", "task.eval_size=8"]
MARKOV = ["task=char_markov", "task.train_size=260", "task.eval_size=150"]
MARKOV += ["task.length=16", "task.context=4"]
TCN = ["model=tcn", "model.channels=[5,5]", "model.kernel_size=3", "model.dropout=0.3"]
LSTM = ["model=lstm", "model.hidden_size=6", "model.num_layers=2", "model.dropout=0.3"]
LLAMA = ["model=llama", "model.dim=8", "model.num_heads=2", "model.num_layers=2"]
LLAMA += ["model.dropout=0.2", "model.context=20"]
XL = ["model=transformer_xl", "model.dim=8", "model.num_heads=2", "model.num_layers=2"]
XL += ["model.dropout=0.2", "model.memory=20", "model.eval_memory=30"]
GAPS = ["task=forecast_file", "task.missing=mask", "task.splits=[27,10,10]"]
GAPS += ["task.length=6", "task.horizon=2"]
CLASSIFY = ["task=classify_file", "task.class_weight=balanced"]
WORDS = ["task=word_file", "task.length=16", "task.context=4"]

CASES = {
    "tcn with dropout": [*ADDING, *TCN, "optimizer=adam", "trainer.clip=0.5"],
    "element dropout": [*MARKOV, *TCN, "model.dropout_kind=element", "optimizer=adagrad"],
    "lstm carries its state": [*MARKOV, *LSTM, "optimizer=adam", "optimizer.lr=0.01"],
    "gru": [*MARKOV, "model=gru", "model.hidden_size=6", "optimizer=adam"],
    "llama carries its cache": [*MARKOV, *LLAMA, "model.carry_state=true", "optimizer=adamw"],
    "llama with context": [*MARKOV, *LLAMA, "optimizer=adam", "model.tied=true"],
    "transformer_xl carries its memory": [*MARKOV, *XL, "optimizer=adam"],
    "tcn_attention": [
        *(*ADDING, "model=tcn_attention", "model.channels=[4,4]", "model.kernel_size=3"),
        *("model.num_heads=1", "model.dropout=0.3", "optimizer=adam"),
    ],
    "plateau": [
        *ADDING,
        *TCN,
        "optimizer=adam",
        "optimizer.lr=0.1",
        "schedule=plateau",
        "schedule.patience=0",
    ],
    "rmsprop": [*ADDING, *LSTM, "optimizer=rmsprop", "optimizer.momentum=0.5"],
    "momentum": [*ADDING, *TCN, "optimizer=sgd", "optimizer.momentum=0.9", "schedule=cosine"],
    "sgd without state": [*ADDING, *TCN, "optimizer=sgd", "schedule=step"],
    "amsgrad": [*ADDING, *TCN, "optimizer=adamw", "optimizer.amsgrad=true"],
    "micro-batches": [*MARKOV, *LSTM, "trainer.accumulate=2", "optimizer=adam"],
    "bf16": [*MARKOV, *LLAMA, "model.carry_state=true", "trainer.precision=bf16"],
    "forecast": [*GAPS, *TCN, "trainer.accumulate=2", "optimizer=adam"],
    "classify": [*CLASSIFY, *TCN, "trainer.accumulate=2", "optimizer=adam"],
    "words, and an lstm carries its state": [
        *WORDS,
        *LSTM,
        "model.init_uniform=0.1",
        "optimizer=adam",
    ],
    "byte pairs": [*WORDS, *TCN, "task.tokens=bpe", "task.vocab_size=270", "optimizer=adam"],
    "fp16": [*ADDING, *TCN, "trainer.precision=fp16", "optimizer=adam"],
}


@pytest.fixture(scope="module", autouse=True)
def table(tmp_path_factory):
    """Write the files of the cases that read one."""
    path = tmp_path_factory.mktemp("table") / "my.csv"
    x = np.random.RandomState(0).randn(31, 9)
    np.savez(path.with_suffix(".npz"), x=x, y=np.arange(31) % 2, lengths=np.arange(31) % 7 + 3)
    path.with_suffix(".txt").write_text("".join(f"{i % 9} {'on' * (i % 5)}\n" for i in range(200)))
    for case in ("words, and an lstm carries its state", "byte pairs"):
        CASES[case].append(f"task.path={path.with_suffix('.txt')}")
    CASES["classify"].append(f"task.path={path.with_suffix('.npz')}")
    rows = [f"{i % 7},{i * i % 11 or ''}\n" for i in range(47)]
    path.write_text("".join(["a,b\n", *rows]))
    CASES["forecast"].append(f"task.path={path}")


@cache
def composed(case):
    return compose([*CASES[case], *COMMON])


def train(case, folder, stops=()):
    """Train, cut off after each step of `stops`; each part is built anew, as a new process does."""
    config = composed(case)
    stopped = []
    for stop in [*sorted(stops), None]:
        trainer = build("trainer", config)
        task = build_task(config, trainer)
        model = build_model(config, task.spec)
        optimizer = build("optimizer", config, model.parameters())
        state = trainer.begin(model, optimizer, build("schedule", config))
        offset = 0
        saved, _ = checkpoint.load_last(folder)
        if saved is not None:
            # Whatever the new process drew before must not matter.
            torch.rand(3), np.random.normal(), random.gauss(0, 1)
            state.restore(*saved)
            offset = saved[1]["events_offset"]
        events = EventLog(folder / "events.jsonl", offset)
        step = count(state.progress.step + 1)
        try:
            trainer.fit(
                Training(state, task, events, folder, Observer()),
                lambda step=step, stop=stop: next(step) == stop,
            )
        except Interrupted:
            stopped.append(state.progress.step)
            # What a process wrote after its last checkpoint, before it was killed.
            events.append({"step": 999, "split": "train", "loss": 0.0})
        finally:
            events.close()
    assert stopped == sorted(stops)
    return {
        "weights": model.state_dict(),
        "events": (folder / "events.jsonl").read_bytes(),
        "best": checkpoint.load(folder / checkpoint.BEST),
        "last": checkpoint.load(folder / checkpoint.LAST),
    }


@cache
def uninterrupted(case):
    with TemporaryDirectory() as folder:
        return train(case, Path(folder))


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=3)
@given(stops=st.sets(st.integers(1, STEPS - 1), min_size=1, max_size=3))
def test_going_on_is_the_same_as_never_stopping(case, stops):
    whole = uninterrupted(case)
    with TemporaryDirectory() as folder:
        parts = train(case, Path(folder), stops)
    assert parts["events"] == whole["events"]
    assert_equal(parts["weights"], whole["weights"])
    for name in ("best", "last"):
        (tensors, facts), (expected, expected_facts) = parts[name], whole[name]
        assert_equal(tensors, expected)
        assert without_time(facts) == without_time(expected_facts)


def assert_equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def without_time(facts):
    """Return the facts of a checkpoint without its durations."""
    return facts | {"progress": facts.get("progress", {}) | {"seconds": None}}


@pytest.mark.parametrize("case", CASES)
def test_the_cases_are_what_they_say(case):
    tensors, facts = uninterrupted(case)["last"]
    assert facts["progress"]["step"] == STEPS
    carries = any(name.startswith("carried") for name in tensors)
    assert carries == ("carries" in case or case in ("gru", "rmsprop", "micro-batches", "bf16"))
    slots = any(name.startswith("optimizer.") for name in tensors)
    assert slots == (case != "sgd without state")
    assert facts["schedule"].get("level", 0.5) < 1
    assert facts["scaler"].get("scale", 2) > 1


@pytest.mark.parametrize(
    ("case", "forgotten"),
    [
        ("tcn with dropout", "random"),
        ("lstm carries its state", "random"),
        ("lstm carries its state", "carried"),
        ("llama carries its cache", "carried"),
        ("transformer_xl carries its memory", "carried"),
        ("tcn with dropout", "optimizer"),
        ("momentum", "optimizer"),
    ],
)
def test_forgetting_any_of_it_would_be_seen(case, forgotten, monkeypatch):
    """Without any part of its state, a resumed run gives other bits."""
    load_last = checkpoint.load_last

    def forgetful(folder):
        saved, remark = load_last(folder)
        if saved is not None:
            kept = {k: v for k, v in saved[0].items() if not k.startswith(f"{forgotten}.")}
            kept.setdefault("random.cpu", torch.Generator().manual_seed(5).get_state())
            saved = kept, saved[1]
        return saved, remark

    monkeypatch.setattr(checkpoint, "load_last", forgetful)
    with TemporaryDirectory() as folder:
        parts = train(case, Path(folder), [7])
    assert parts["events"] != uninterrupted(case)["events"]
