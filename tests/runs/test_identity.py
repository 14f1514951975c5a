import copy
from functools import reduce

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.runs.defaults import (
    OPTIMIZERS,
    changed_defaults,
    defaults_for_ids,
    signature_defaults,
)
from seqbench.runs.identity import result_config, run_id, without_environment

# A config that `compose` returned when ids were introduced. Its id must never change.
CONFIG = {
    "seed": 0,
    "device": "auto",
    "threads": None,
    "data_dir": None,
    "output_dir": "outputs",
    "task": {
        "_target_": "seqbench.tasks.adding.Adding",
        "_partial_": True,
        "length": 600,
        "markers": "anywhere",
        "train_size": 50000,
        "eval_size": 1000,
        "data_seed": 0,
    },
    "model": {
        "_target_": "seqbench.models.rnn.LSTM",
        "_partial_": True,
        "hidden_size": 130,
        "num_layers": 1,
        "dropout": 0.0,
        "embedding_dim": None,
        "tied": False,
        "forget_bias": 1.0,
        "chrono": None,
    },
    "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.002},
    "schedule": {
        "_target_": "seqbench.training.schedules.Constant",
        "_partial_": True,
        "warmup": 0.0,
    },
    "trainer": {
        "_target_": "seqbench.training.trainer.Trainer",
        "steps": None,
        "epochs": 10,
        "batch_size": 32,
        "accumulate": 1,
        "clip": 5.0,
        "precision": "fp32",
        "eval_every": None,
        "checkpoint_every": None,
        "log_every": 50,
        "stop_when_solved": False,
        "deterministic": False,
        "compile": False,
    },
    "recipe": {"source": "a paper"},
    "protocol": "ours",
    "budget": "full",
    "choices": {"task": "adding", "model": "lstm"},
}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *nodes, key = path.split(".")
    reduce(dict.__getitem__, nodes, config)[key] = value
    return config


def test_an_id_never_changes():
    assert run_id(CONFIG) == "8c5392d8c530"
    assert run_id(changed("trainer.clip", 5)) == run_id(CONFIG)  # an int equals its float, 5.0
    assert run_id(changed("trainer.clip", 5.5)) != run_id(CONFIG)


def shuffled(value, random):
    if not isinstance(value, dict):
        return value
    keys = random.sample(list(value), len(value))
    return {key: shuffled(value[key], random) for key in keys}


@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_change_the_id(random):
    assert run_id(shuffled(CONFIG, random)) == run_id(CONFIG)


PLACE = {
    "device": "cuda:1",
    "threads": 7,
    "data_dir": "elsewhere",
    "output_dir": "/other",
    "recipe": {"source": "the same values, found by another"},
    "trainer.log_every": 1,
    "trainer.checkpoint_every": 3,
    "trainer.deterministic": True,
    "trainer.compile": True,
}


@pytest.mark.parametrize("path", PLACE)
def test_settings_that_cannot_change_the_result_do_not_change_the_id(path):
    config = changed(path, PLACE[path])
    assert run_id(config) == run_id(CONFIG)
    if path != "recipe":
        assert without_environment(config) == without_environment(CONFIG)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("task.length", 601),
        ("task.data_seed", 1),
        ("model.hidden_size", 131),
        ("model.chrono", 600),
        ("model._target_", "seqbench.models.rnn.GRU"),
        ("optimizer.lr", 0.0021),
        ("optimizer.betas", [0.9, 0.99]),
        ("optimizer._target_", "torch.optim.AdamW"),
        ("schedule.warmup", 0.1),
        ("trainer.epochs", 11),
        ("trainer.batch_size", 16),
        ("trainer.accumulate", 2),
        ("trainer.clip", None),
        ("trainer.precision", "bf16"),
        ("trainer.eval_every", 10),  # determines the candidates for the best weights
        ("trainer.stop_when_solved", True),
        ("budget", "quick"),
        ("protocol", "theirs"),
        ("choices", {"task": "adding", "model": "other"}),
    ],
)
def test_settings_that_can_change_the_result_change_the_id(path, value):
    assert run_id(changed(path, value)) != run_id(CONFIG)
    assert without_environment(changed(path, value)) != without_environment(CONFIG)


@pytest.mark.parametrize(
    ("key", "default"),
    [("eps", 1e-8), ("betas", [0.9, 0.999]), ("amsgrad", False), ("foreach", None)],
)
def test_an_option_at_its_default_does_not_change_the_id(key, default):
    assert run_id(changed(f"optimizer.{key}", default)) == run_id(CONFIG)
    assert key not in result_config(changed(f"optimizer.{key}", default))["optimizer"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_frozen_defaults_of_optimizers_match_the_installed_torch(name):
    """The frozen defaults must equal those of the installed torch.

    If a new version of torch changes a default, keep the frozen value, and list the change here.
    """
    target = f"torch.optim.{name}"
    here, frozen = signature_defaults(target), defaults_for_ids(target)
    assert {key: frozen[key] for key in here} == here
    assert changed_defaults(target) == {}


def test_a_changed_default_of_torch_changes_neither_the_id_nor_the_run(monkeypatch):
    old, config = run_id(CONFIG), changed("optimizer.eps", 1e-8)

    class Adam(torch.optim.Adam):
        def __init__(self, params, lr=1e-3, eps=1e-3):
            super().__init__(params, lr, eps=eps)

    monkeypatch.setattr(torch.optim, "Adam", Adam)
    signature_defaults.cache_clear()
    assert run_id(CONFIG) == run_id(config) == old
    assert run_id(changed("optimizer.eps", 1e-3)) != old
    for each in (CONFIG, config):
        built = build("optimizer", each, [torch.nn.Parameter(torch.zeros(1))])
        assert built.defaults["eps"] == 1e-8
    monkeypatch.undo()
    signature_defaults.cache_clear()


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_ids_are_twelve_hex_digits_and_differ_between_seeds(one, other):
    ids = run_id(changed("seed", one)), run_id(changed("seed", other))
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in ids)
    assert (ids[0] == ids[1]) == (one == other)


def test_equivalent_overrides_give_the_same_id():
    config = compose(["model=gru", "optimizer.lr=0.01"])
    assert run_id(config) == run_id(compose(["optimizer.lr=1e-2", "model=gru", "threads=1"]))
