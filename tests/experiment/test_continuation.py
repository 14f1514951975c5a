"""A completed run that is continued by another one."""

import json
import os
import shlex
import shutil
import signal

import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, Interrupted, RunError
from seqbench.experiment import run
from seqbench.experiment.seeds import run_seeds
from seqbench.launch.resume import config_to_resume
from seqbench.results.cells import aggregate
from seqbench.results.command import command
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training import checkpoint

SMALL = ["recipe=none", "threads=1", "device=cpu", "trainer.eval_every=4", "trainer.batch_size=8"]
ADDING = ["task=adding", "task.length=12", "task.train_size=40", "task.eval_size=16"]
TCN = [*ADDING, "model=tcn", "model.channels=[4,4]", "model.kernel_size=3", "model.dropout=0.2"]
LSTM = [
    "task=char_markov",
    "task.train_size=3000",
    "task.eval_size=400",
    "task.length=20",
    "task.context=4",
]
LLAMA = [*LSTM, "model=llama", "model.dim=8", "model.num_heads=2", "model.num_layers=1"]
LLAMA += ["optimizer=adamw", "trainer.decay=matrices"]
LSTM += ["model=lstm", "model.hidden_size=4", "optimizer=rmsprop"]


def trained(folder, *words, model=TCN):
    config = compose([*SMALL, "trainer.steps=12", *model, *words, f"output_dir={folder}"])
    assert run(config).status == "completed"
    return config


def continued(parent, *words):
    """Return the config of a continuation, as the command line makes it."""
    return config_to_resume(str(Run.of(parent).folder), words, ())


def left_behind(config):
    """Return weights, events and record of a run, without what may differ between equal runs."""
    folder = Run.of(config)
    last, best = (
        checkpoint.load(folder.checkpoints / name) for name in (checkpoint.LAST, checkpoint.BEST)
    )
    last[1]["progress"].pop("seconds")
    tensors = {k: v.tolist() for state in (last, best) for k, v in state[0].items()}
    record = folder.record.to_json()
    record.pop("measured")
    return tensors, last[1], best[1], folder.events_path.read_bytes(), record


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("parent"))


@pytest.fixture
def copied(parent, tmp_path):
    """A copy of the parent, to be damaged."""
    shutil.copytree(parent["output_dir"], tmp_path / "copy")
    return parent | {"output_dir": str(tmp_path / "copy")}


@pytest.mark.parametrize(
    "model", [TCN, LSTM, LLAMA], ids=["dropout", "carried state", "two parameter groups"]
)
def test_at_a_constant_rate_it_ends_as_the_longer_run_does(tmp_path, model):
    first = trained(tmp_path, model=model)
    config = continued(first, "trainer.steps=24")
    run(config)
    *states, record = left_behind(config)
    *expected, longer = left_behind(trained(tmp_path, "trainer.steps=24", model=model))
    assert states == expected
    assert record["metrics"] == longer["metrics"]
    assert (record["steps"], record["tokens"]) == (24, longer["tokens"])
    # It is another run all the same, and says so.
    assert record["run_id"] != longer["run_id"]
    assert record["config"]["continues"] == Run.of(first).run_id
    assert record["notes"]["continues"] == "steps=12"
    history = (Run.of(config).folder / "history.jsonl").read_text().splitlines()
    begun = json.loads(history[0])
    assert (begun["event"], begun["step"], begun["continues"]) == (
        "started",
        12,
        Run.of(first).run_id,
    )


def test_its_learning_rates_are_those_of_its_own_schedule(tmp_path):
    config = continued(trained(tmp_path, "schedule=cosine"), "trainer.steps=24")
    run(config | {"trainer": config["trainer"] | {"log_every": 1}})
    events = map(json.loads, Run.of(config).events_path.read_text().splitlines())
    rates = {event["step"]: event["lr"] for event in events if event["split"] == "train"}
    expected = trained(tmp_path, "schedule=cosine", "trainer.steps=24", "trainer.log_every=1")
    events = map(json.loads, Run.of(expected).events_path.read_text().splitlines())
    longer = {event["step"]: event["lr"] for event in events if event["split"] == "train"}
    after = {step: rate for step, rate in rates.items() if step > 12}
    assert len(after) == 12
    assert after == {step: rate for step, rate in longer.items() if step > 12}


class Stop(Observer):
    def event(self, event):
        if event["step"] == 16:
            os.kill(os.getpid(), signal.SIGTERM)


def test_interrupted_it_resumes_without_its_parents_checkpoints(copied):
    config = continued(copied, "trainer.steps=24", "trainer.log_every=1")
    run(config)
    whole = left_behind(config)
    shutil.rmtree(Run.of(config).folder)
    with pytest.raises(Interrupted):
        run(config, Stop())
    assert Run.of(config).record is None
    shutil.rmtree(Run.of(copied).checkpoints)
    run(config)
    assert left_behind(config) == whole
    # From the start it needs them, and is left as it is without them.
    with pytest.raises(RunError, match=r"last\.safetensors was deleted; 'seqbench train --resume"):
        run(config, force=True)
    assert left_behind(config) == whole


def test_force_begins_at_the_parents_end_again(copied):
    config = continued(copied, "trainer.steps=24")
    run(config)
    whole = left_behind(config)
    run(config, force=True)
    assert left_behind(config) == whole


def test_a_run_that_patience_ended_is_continued_from_its_end(tmp_path):
    # At this rate no evaluation is better than the first. No checkpoint is due at step 12.
    words = ["optimizer=sgd", "optimizer.lr=0.5", "trainer.patience=2", "trainer.clip=0.1"]
    first = trained(tmp_path, *words, "trainer.steps=40", "trainer.checkpoint_every=10")
    assert Run.of(first).record.steps < 40
    step = Run.of(first).record.steps
    over = f"has done {step} steps, and trainer.patience=2 ends its continuation there: "
    with pytest.raises(ConfigError, match=f"{over}add trainer.patience=null"):
        run(continued(first, "trainer.steps=80"))
    record = run(continued(first, "trainer.patience=null"))
    assert (record.steps, record.notes["continues"]) == (40, "patience=2")
    by_epochs = continued(first, "trainer.epochs=9", "trainer.patience=9")
    assert run(by_epochs).notes["continues"] == "steps=40 patience=2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.steps=8"], "done 12 steps: expected a larger trainer.steps, got 8: try .*=24"),
        (["trainer.steps=1.2e1"], "expected a larger trainer.steps, got 12"),
        (["trainer.log_every=1"], "expected a larger trainer.steps, got 12"),
        (["trainer.epochs=2"], "expected a larger trainer.epochs, got 2, of 10 steps"),
        (
            ["trainer.steps=24", "optimizer.lr=1"],
            "takes no optimizer.lr .there are: data_dir, task.path",
        ),
        (["output_dir=there"], "takes the path of a run in another output_dir: FOLDER/ID"),
        (["trainer.step=24"], r"no trainer.step \(did you mean 'trainer.steps'\?\)"),
        (["trainer.steps=24,36"], "a run takes one trainer.steps"),
        (["trainer.steps=many"], "trainer.steps must be int or null, not 'many'"),
    ],
)
def test_what_cannot_be_continued_is_refused_before_anything_is_written(parent, words, said):
    runs = Run.of(parent).folder.parent
    with pytest.raises(ConfigError, match=said):
        run(continued(parent, *words))
    assert list(runs.iterdir()) == [Run.of(parent).folder]


def test_only_a_completed_run_is_continued(copied):
    folder = Run.of(copied)
    with folder.held():
        record = folder.record_path.read_text()
        folder.record_path.unlink()
        with pytest.raises(ConfigError, match="is being trained: continue it when"):
            continued(copied, "trainer.steps=24")
    with pytest.raises(ConfigError, match="is unfinished: first complete it with 'seqbench train"):
        continued(copied, "trainer.steps=24")
    folder.record_path.write_text(record.replace('"completed"', '"diverged"'))
    with pytest.raises(ConfigError, match=r"diverged, and only a completed run .* --retry' starts"):
        continued(copied, "trainer.steps=24")


def test_other_settings_typed_with_the_parents_id_are_refused(parent, tmp_path):
    name = Run.of(parent).run_id
    words = [*SMALL, *TCN, "trainer.steps=24", f"output_dir={parent['output_dir']}"]
    with pytest.raises(ConfigError, match=f"continuation of run {name} keeps its optimizer.lr"):
        run(compose([*words, f"continues={name}", "optimizer.lr=0.5"]))
    with pytest.raises(ConfigError, match="run 0123456789ab is not in"):
        run(compose([*words, "continues=0123456789ab"]))
    with pytest.raises(
        ConfigError, match=r"continues must be a run id, 12 hex digits, not '\.\./x'"
    ):
        compose([*words, "continues=../x"])
    with pytest.raises(ConfigError, match="continue each run by itself"):
        run_seeds([compose([*words, f"continues={name}"])], lambda one, shown: Observer())


def test_a_link_instead_of_a_checkpoint_is_not_read(copied, tmp_path):
    last = Run.of(copied).checkpoints / checkpoint.LAST
    last.rename(tmp_path / "elsewhere")
    last.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"cannot be continued: .* is a link"):
        run(continued(copied, "trainer.steps=24"))


def test_tables_pool_seeds_and_keep_continuations_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    records, configs = [], []
    for seed in (0, 1):
        first = trained(tmp_path, f"seed={seed}")
        configs += [continued(first, "trainer.steps=16")]
        records += [run(configs[-1]), run(trained(tmp_path, "trainer.steps=16", f"seed={seed}"))]
    cells = aggregate(records)
    assert {cell.variant: len(cell.records) for cell in cells} == {
        "": 2,
        "continues=steps=12": 2,
    }
    # A continuation of a continuation says so, too.
    last = continued(configs[0], "trainer.steps=20")
    assert run(last).notes["continues"] == "steps=12 then steps=16"
    assert compose(shlex.split(command(last))[2:])["continues"] == Run.of(configs[0]).run_id
    shown = CliRunner().invoke(app, ["show", str(Run.of(last).folder)]).stdout
    ids = [Run.of(config).run_id for config in (configs[0], configs[0])]
    assert f"run {ids[0]} of 16 steps" in shown
    assert f"run {configs[0]['continues']} of 12 steps" in shown
    listed = CliRunner().invoke(app, ["runs", str(tmp_path)]).stdout
    assert f"continues={configs[0]['continues'][:8]}" in listed


def test_the_code_of_a_foreign_parent_is_not_imported(tmp_path, monkeypatch):
    parent = trained(tmp_path)
    config = continued(parent, "trainer.steps=24")
    path = Run.of(parent).config_path
    path.write_text(path.read_text().replace("seqbench.models.tcn.TCN", "evil.TCN"))
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="keeps its model and its task"):
        run(config)
