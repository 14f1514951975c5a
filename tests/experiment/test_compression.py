"""Runs whose model is a trained one made smaller."""

import shutil
from functools import cache
from statistics import fmean

import pytest
import torch

from seqbench.config.compose import compose
from seqbench.errors import ConfigError, Interrupted
from seqbench.experiment import latency, run
from seqbench.experiment.saved_run import SavedRun
from seqbench.launch.compressing import compressed_configs
from seqbench.models.effective import matrices, to_effective
from seqbench.runs.events import read_events
from seqbench.runs.identity import run_id
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training import checkpoint
from seqbench.training.stored import step_of, unpacked

SMALL = ["recipe=none", "threads=1", "device=cpu", "trainer.batch_size=8", "trainer.steps=6"]
SMALL += ["trainer.eval_every=3", "task=adding", "task.length=12", "task.train_size=40"]
SMALL += ["task.eval_size=16"]
MODELS = {
    "gru": ["model=gru", "model.hidden_size=8", "model.num_layers=2"],
    "tcn": ["model=tcn", "model.channels=[8,8,8]", "model.kernel_size=3"],
    "llama": ["model=llama", "model.dim=16", "model.num_heads=2", "model.hidden_dim=24"],
}


@pytest.fixture(autouse=True)
def few_passes(monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0)
    monkeypatch.setattr(latency, "LONGEST", 0)


@pytest.fixture(scope="module")
def parent_of(tmp_path_factory):
    """Return a function that trains a model the first time that it is asked for."""

    @cache
    def trained(name):
        folder = tmp_path_factory.mktemp(name)
        config = compose([*SMALL, *MODELS[name], f"output_dir={folder}"])
        assert run(config).status == "completed"
        return Run.of(config)

    return trained


@pytest.fixture(scope="module", params=MODELS)
def parent(request, parent_of):
    return parent_of(request.param)


@pytest.fixture(scope="module")
def tcn(parent_of):
    return parent_of("tcn")


def config_of(parent, *overrides, prune=(), scope=None, quantize=(), steps=0, folder=None):
    (config,) = compressed_configs(
        str(parent.folder), prune, scope, quantize, steps, overrides, parent.folder.parents[3]
    )
    return config if folder is None else config | {"output_dir": str(folder)}


def tensors_of(folder):
    return checkpoint.load(folder.checkpoints / checkpoint.BEST)[0]


def kernels_of(folder):
    """Return the effective weight matrices of a run, as they are loaded."""
    model = SavedRun(folder.folder).model
    return matrices(model, to_effective(model, model.state_dict()))


@pytest.mark.parametrize(
    ("parent", "changes"),
    [
        *((name, {"prune": [f"{what}=0"]}) for name in MODELS for what in ("weights", "units")),
        ("tcn", {"quantize": ["fp32"]}),
    ],
    indirect=["parent"],
)
def test_nothing_pruned_and_fp32_change_no_bit(parent, changes):
    config = config_of(parent, **changes)
    record = run(config)
    assert record.run_id != parent.run_id
    assert record.score == parent.record.score
    before, after = tensors_of(parent), tensors_of(Run.of(config))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_fine_tuning_at_rate_zero_scores_as_the_parent(parent):
    config = config_of(parent, "optimizer.lr=0", prune=["weights=0"], steps=4)
    record = run(config)
    assert (record.steps, record.metrics["test"]) == (4, parent.record.metrics["test"])


@pytest.mark.parametrize(
    ("parent", "kind"),
    [
        *(("tcn", kind) for kind in ("fp16", "bf16", "int8-weights")),  # weight norm
        ("gru", "bf16"),
        ("llama", "int8-weights"),
    ],
    indirect=["parent"],
)
def test_what_is_loaded_is_what_was_scored(parent, kind):
    config = config_of(parent, prune=["weights=0.7"], quantize=[kind])
    record, folder = run(config), Run.of(config)
    assert SavedRun(folder.folder).evaluate("test") == record.metrics["test"]
    assert SavedRun(folder.folder).evaluate("valid") == record.metrics["valid"]
    # The names of so few weights take most of the file.
    assert record.measured["bytes"] < record.measured["parent_bytes"]
    assert record.measured["latency_ratio"] > 0
    if parent.record.model != "tcn":
        return
    # Storing what was loaded changes no bit.
    again = config_of(folder, prune=["weights=0"], quantize=[kind])
    run(again)
    first, second = (SavedRun(f.folder).model.state_dict() for f in (folder, Run.of(again)))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-6, atol=0)
        assert kind == "int8-weights" or torch.equal(second[name], tensor)


@pytest.mark.parametrize("steps", [0, 4])
def test_where_test_is_watched_the_score_is_that_of_the_stored_weights(tmp_path, steps):
    load = [f"{i},{i % 7 + i % 3}" for i in range(120)]
    (tmp_path / "load.csv").write_text("\n".join(["time,load", *load]))
    words = ["task=forecast_file", f"task.path={tmp_path}/load.csv", "task.target=load"]
    words += ["task.length=8", "task.horizon=2", "trainer.watch=test", f"output_dir={tmp_path}"]
    config = compose([*[w for w in SMALL if "task" not in w], *MODELS["gru"], *words])
    run(config)
    changes = {"prune": ["weights=0.9"], "quantize": ["int8-weights"], "steps": steps}
    config = config_of(Run.of(config), *["optimizer.lr=0.05"][:steps], **changes)
    record, folder = run(config), Run.of(config)
    events = [event for event in read_events(folder.events_path) if event["split"] == "test"]
    assert [event["step"] for event in events] == [0, 3, 4][: 1 + steps]
    assert record.score.value == fmean(event["mse"] for event in events[1:] or events)
    kept = folder.forecasts_path.read_text()
    folder.forecasts_path.unlink()
    SavedRun(folder.folder).keep_forecasts()
    assert folder.forecasts_path.read_text() == kept


def test_int8_is_off_by_half_a_step_at_most(parent):
    config = config_of(parent, quantize=["int8-weights"])
    run(config)
    after, stored = kernels_of(Run.of(config)), tensors_of(Run.of(config))
    for name, weight in kernels_of(parent).items():
        step = step_of(weight)
        assert ((after[name] - weight).abs() <= step / 2 * (1 + 1e-5)).all(), name
    assert sum(tensor.dtype == torch.int8 for tensor in stored.values()) == len(after)


@pytest.mark.parametrize(
    ("parent", "scope"),
    [*((name, "global") for name in MODELS), ("tcn", "layer")],
    indirect=["parent"],
)
def test_pruned_weights_are_the_smallest_and_stay_zero(parent, scope):
    config = config_of(parent, "optimizer.lr=0.01", prune=["weights=0.6"], scope=scope, steps=6)
    record = run(config)
    before, after = kernels_of(parent), kernels_of(Run.of(config))
    groups = [[name] for name in before] if scope == "layer" else [list(before)]
    for names in groups:
        sizes = torch.cat([before[name].abs().flatten() for name in names])
        left = torch.cat([after[name].flatten() for name in names])
        count = round(0.6 * len(sizes))
        assert int((left == 0).sum()) == count
        assert set(sizes.argsort()[:count].tolist()) == set((left == 0).nonzero()[:, 0].tolist())
    assert any(
        not torch.equal(before[name][weight != 0], weight[weight != 0])
        for name, weight in after.items()
    )
    zeros = sum(int((weight == 0).sum()) for weight in after.values())
    assert record.notes["nonzero"] == record.parameters - zeros


def test_whole_outputs_without_weights_have_gradients(tcn):
    """A weight of 0 in every input of a channel has no direction to normalise."""
    config = config_of(tcn, prune=["weights=0.97"], steps=4)
    record = run(config)
    assert record.status == "completed"
    kernel = kernels_of(Run.of(config))["blocks.1.conv1.weight"]
    assert not kernel.flatten(1).any(1).all()
    assert kernel.isfinite().all()


def test_removed_units_make_a_smaller_model_that_learns(parent):
    config = config_of(parent, prune=["units=0.5"], steps=6)
    record = run(config)
    assert record.status == "completed"
    assert record.parameters < 0.7 * parent.record.parameters
    assert record.notes["method"] == "units 50 % + 6 steps"
    assert SavedRun(Run.of(config).folder).evaluate("test") == record.metrics["test"]


def test_killed_while_fine_tuning_it_ends_with_the_same_bits(parent, tmp_path):
    class Stop(Observer):
        def event(self, event):
            if event["step"] == 4:
                raise Interrupted("by the test")

    changes = {"prune": ["weights=0.5"], "quantize": ["int8-weights"], "steps": 6}
    words = "optimizer.lr=0.01", "trainer.checkpoint_every=1", "trainer.eval_every=2"
    whole = config_of(parent, *words, **changes, folder=tmp_path / "whole")
    cut = config_of(parent, *words, **changes, folder=tmp_path / "cut")
    expected = run(whole)
    with pytest.raises(Interrupted):
        run(cut, Stop())
    resumed = []

    class See(Observer):
        def started(self, facts):
            resumed.append(facts["step"])

    record = run(cut, See())
    assert resumed[0] in (2, 3)
    assert (record.metrics, record.notes) == (expected.metrics, expected.notes)
    for name, tensor in tensors_of(Run.of(whole)).items():
        assert torch.equal(tensors_of(Run.of(cut))[name], tensor)


def test_a_compressed_run_is_a_parent_in_turn(tcn):
    first = config_of(tcn, prune=["units=0.25"])
    run(first)
    second = config_of(Run.of(first), quantize=["int8-weights"])
    record = run(second)
    assert record.config["init_run"] == run_id(first)
    assert record.config["model"]["channels"] == [6, 6, 6]
    assert record.notes["method"] == "int8-weights"


def test_other_runs_keep_their_ids_and_a_method_makes_another(tcn):
    assert run_id(compose([*SMALL, *MODELS["tcn"]])) == tcn.run_id
    methods = [{"prune": ["weights=0.5"]}, {"prune": ["units=0.5"]}, {"quantize": ["fp16"]}]
    methods += [
        {"prune": ["weights=0.5"], "scope": "layer"},
        {"prune": ["weights=0.5"], "steps": 2},
    ]
    assert len({run_id(config_of(tcn, **each)) for each in methods}) == len(methods)
    same = config_of(tcn, prune=["weights=0.5"], scope="global")
    assert run_id(same) == run_id(config_of(tcn, prune=["weights=0.50"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "compress needs --prune"),
        ({"prune": ["0.5"]}, "--prune takes weights=SHARE or units=SHARE"),
        ({"prune": ["weights=half"]}, "expected a fraction such as 0.5, got 'half'"),
        ({"prune": ["weights=1"]}, r"must be in \[0, 1\)"),
        ({"prune": ["weights=nan"]}, r"must be in \[0, 1\)"),
        ({"prune": ["units=0.5"], "scope": "layer"}, "--scope is for --prune weights"),
        ({"quantize": ["int4"]}, r"knows no 'int4' \(there are: bf16, fp16, fp32, int8-weights\)$"),
        ({"quantize": ["fp16"], "steps": -1}, "a number of steps, not -1"),
    ],
)
def test_a_wrong_argument_is_one_line(tcn, changes, said):
    with pytest.raises(ConfigError, match=said):
        config_of(tcn, **changes)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.steps=5", "compress takes --finetune STEPS"),
        ("model.kernel_size=5", "compress changes optimizer"),
        ("seed=1", "compress changes optimizer"),
        ("optimizer.rate=1", "no key 'optimizer.rate'|optimizer.rate"),
    ],
)
def test_a_setting_of_the_parent_stays(tcn, word, said):
    with pytest.raises(ConfigError, match=said):
        config_of(tcn, word, quantize=["fp16"], steps=1)


def test_a_setting_of_fine_tuning_needs_steps(tcn):
    with pytest.raises(
        ConfigError, match=r"optimizer\.lr=0\.1 changes fine-tuning: add --finetune"
    ):
        config_of(tcn, "optimizer.lr=0.1", quantize=["fp16"])


def test_without_a_parent_there_is_nothing_to_compress():
    from seqbench.config.check import check

    config = compose([*SMALL, *MODELS["tcn"]])
    with pytest.raises(ConfigError, match="compress needs init_from"):
        check(config | {"compress": {"weights": 0.5}})
    with pytest.raises(ConfigError, match=r"trainer\.steps must be positive, not 0"):
        run(compose([*SMALL, *MODELS["tcn"], "trainer.steps=0"]))


def test_a_hostile_parent_runs_no_code(tcn, tmp_path):
    folder = tmp_path / "runs" / "adding" / "tcn" / tcn.run_id
    shutil.copytree(tcn.folder, folder)
    config = folder / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("seqbench.models.tcn.TCN", "os.system"))
    with pytest.raises(ConfigError, match=r"the run names os\.system"):
        config_of(Run(folder), prune=["units=0.5"])
    config.write_text(text)
    (folder / "checkpoints" / "best.safetensors").write_bytes(b"\x80\x04\x95cos\nsystem\n.")
    with pytest.raises(ConfigError, match="is not a file of weights"):
        config_of(Run(folder), prune=["units=0.5"])
    with pytest.raises(ConfigError, match="is not a file of weights"):
        run(config_of(Run(folder), prune=["weights=0.5"]))


@pytest.mark.parametrize(
    "tensors",
    [
        {"model.a": torch.ones(3), "scale.model.a": torch.ones(2)},
        {"scale.model.a": torch.ones(2)},
        {"model.a": torch.ones(3), "nonzero.model.a": torch.ones(1, dtype=torch.uint8)},
        {
            "model.a": torch.ones(3),
            "nonzero.model.a": torch.tensor([255], dtype=torch.uint8),
            "shape.model.a": torch.tensor([8]),
        },
        {
            "model.a": torch.ones(8),
            "nonzero.model.a": torch.tensor([255], dtype=torch.uint8),
            "shape.model.a": torch.tensor([2**40, 2**40]),
        },
    ],
)
def test_parts_of_a_weight_that_do_not_fit_are_an_error(tensors):
    from seqbench.errors import RunError

    with pytest.raises(RunError, match=r"damaged|does not fit"):
        unpacked(tensors)
