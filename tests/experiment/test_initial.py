"""A run that starts from the weights of another one."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from seqbench.config.compose import compose
from seqbench.errors import ConfigError, DataError, Interrupted
from seqbench.experiment import run
from seqbench.experiment.build import Experiment
from seqbench.experiment.seeds import run_seeds
from seqbench.results.cells import aggregate
from seqbench.results.command import command
from seqbench.results.summary import record_sections
from seqbench.runs.identity import run_id
from seqbench.runs.observer import Observer
from seqbench.runs.run import Run
from seqbench.training import checkpoint

SMALL = ["recipe=none", "threads=1", "device=cpu", "trainer.batch_size=8", "trainer.steps=12"]
SMALL += ["trainer.eval_every=4", "trainer.checkpoint_every=3", "optimizer.lr=0.01"]
GRU = ["task=adding", "task.length=12", "task.train_size=40", "task.eval_size=16", "model=gru"]
GRU += ["model.hidden_size=6", "model.num_layers=2"]
TEXT = ["task=char_file", "model=gru", "model.hidden_size=6", "task.length=20", "task.context=4"]


def config_of(folder, *words):
    return compose([*SMALL, *words, f"output_dir={folder}"])


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    config = config_of(tmp_path_factory.mktemp("parent"), *GRU)
    assert run(config).status == "completed"
    return Run.of(config)


def weights(folder):
    return checkpoint.load(folder.checkpoints / checkpoint.BEST)[0]


def child(parent, folder, *words):
    return config_of(folder, *GRU, f"init_from={parent.folder}", *words)


def test_all_weights_are_loaded_bit_for_bit_and_at_rate_zero_score_as_the_parent(parent, tmp_path):
    config = child(parent, tmp_path, "init_lr_scale=0", "seed=5")
    experiment = Experiment(config)
    assert (experiment.initial.fresh, experiment.initial.unused) == ((), ())
    for name, tensor in weights(parent).items():
        assert torch.equal(experiment.state.model.state_dict()[name.removeprefix("model.")], tensor)
    record = run(config)
    assert record.metrics["test"] == parent.record.metrics["test"]


def test_what_fits_neither_in_name_nor_in_shape_starts_anew(parent, tmp_path, capsys):
    config = child(parent, tmp_path, "model.num_layers=1")
    initial = Experiment(config).initial
    assert set(initial.loaded) >= {"layers.0.weight_hh_l0", "output.weight"}
    assert all(name.startswith("layers.1.") for name in initial.unused)
    assert initial.fresh == ()
    run(config)
    log = Run.of(config).log_path.read_text()
    assert "loaded " in log
    assert "unused: layers.1." in log


def test_nothing_that_fits_is_an_error(parent, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3), "output.weight": torch.zeros(9, 9)}, path)
    with pytest.raises(ConfigError, match=r"no tensor fits .* a \(3,\), output.weight \(9, 9\)"):
        run(config_of(tmp_path, *GRU, f"init_from={path}"))


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_a_hostile_file_is_no_file_of_weights(content, tmp_path):
    path = tmp_path / "evil.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a file of weights"):
        run(config_of(tmp_path, *GRU, f"init_from={path}"))


@pytest.mark.parametrize(
    "facts",
    ["", "null", "3", '"text"', "[[]]", "[" * 100_000, '{"preprocessing": 3}'],
    ids=lambda facts: facts[:20],
)
def test_hostile_facts_make_no_file_of_weights(facts, tmp_path):
    path = tmp_path / "evil.safetensors"
    save_file({"output.bias": torch.zeros(1)}, path, metadata={"facts": facts})
    with pytest.raises(ConfigError, match="is not a file of weights"):
        run(config_of(tmp_path, *GRU, f"init_from={path}"))


def test_tensors_of_another_program_are_loaded_by_their_names(tmp_path):
    path = tmp_path / "foreign.safetensors"
    bias = torch.full((1,), 7.0)
    save_file({"output.bias": bias}, path)
    initial = Experiment(config_of(tmp_path, *GRU, f"init_from={path}")).initial
    assert torch.equal(initial.loaded["output.bias"], bias)
    assert len(initial.fresh) == 9


def test_frozen_parameters_stay_and_the_others_of_the_parent_learn_at_their_own_rate(
    parent, tmp_path
):
    words = ["init_freeze=[layers.0]", "init_lr_scale=0.1"]
    config = child(parent, tmp_path, *words)
    experiment = Experiment(config)
    rates = [group["lr"] for group in experiment.state.optimizer.param_groups]
    assert rates == [pytest.approx(0.001)]
    run(config)
    before, after = weights(parent), weights(Run.of(config))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) is name.startswith("model.layers.0.")


def test_new_parameters_learn_at_the_full_rate(parent, tmp_path):
    config = child(parent, tmp_path, "model.num_layers=3", "init_lr_scale=0.5")
    groups = Experiment(config).state.optimizer.param_groups
    assert [(len(g["params"]), g["lr"]) for g in groups] == [(10, 0.005), (4, 0.01)]


@pytest.mark.parametrize("name", ["layer", "layers.2", "output.weigh"])
def test_a_name_that_freezes_nothing_is_an_error(name, parent, tmp_path):
    with pytest.raises(ConfigError, match=f"no loaded parameter is named '{name}'; there are lay"):
        run(child(parent, tmp_path, f"init_freeze=[{name}]"))


def test_interrupted_and_resumed_it_ends_with_the_same_bits(parent, tmp_path):
    class Stop(Observer):
        def event(self, event):
            if event["step"] == 8:
                raise Interrupted("by the test")

    words = ["init_freeze=[layers.0]", "init_lr_scale=0.1", "model.num_layers=3"]
    whole = child(parent, tmp_path / "whole", *words)
    cut = child(parent, tmp_path / "cut", *words)
    expected = run(whole)
    with pytest.raises(Interrupted):
        run(cut, Stop())
    assert run(cut).metrics == expected.metrics
    for name, tensor in weights(Run.of(whole)).items():
        assert torch.equal(weights(Run.of(cut))[name], tensor)


def test_identity_is_of_parent_and_weights_wherever_they_are(parent, tmp_path):
    first = child(parent, tmp_path)
    shutil.copytree(parent.folder, tmp_path / "moved" / parent.run_id)
    moved = config_of(tmp_path, *GRU, f"init_from={tmp_path / 'moved' / parent.run_id}")
    assert run_id(moved) == run_id(first) != run_id(config_of(tmp_path, *GRU))
    assert first["init_run"] == parent.run_id
    path = tmp_path / "moved" / parent.run_id / "checkpoints" / checkpoint.BEST
    path.unlink()
    with pytest.raises(ConfigError, match=r"has no checkpoints/best\.safetensors"):
        config_of(tmp_path, *GRU, f"init_from={path.parents[1]}")
    (path.parents[1] / "record.json").unlink()
    with pytest.raises(ConfigError, match="has not ended: wait for it, or resume it"):
        config_of(tmp_path, *GRU, f"init_from={path.parents[1]}")
    with pytest.raises(DataError, match="is not there"):
        run(moved)


def test_its_command_makes_the_same_run_and_tables_and_show_name_the_parent(parent, tmp_path):
    config = child(parent, tmp_path, "init_lr_scale=0.5", "init_freeze=[output]")
    record = run(config)
    words = command(record.config | {"output_dir": str(tmp_path)}).split()[2:]
    assert run_id(compose([word.strip("'") for word in words])) == record.run_id
    second, first = sorted(cell.variant for cell in aggregate([record, parent.record]))
    assert first.startswith(f"from={parent.run_id[:8]}")
    assert "from=" not in second
    (alone,) = aggregate([record])
    assert alone.variant == f"from={parent.run_id[:8]}"
    shown = record_sections(record, Run.of(config).folder)[""]["starts from"]
    assert shown.startswith(f"run {parent.run_id}, gru on adding")


def test_a_text_has_the_vocabulary_of_the_parent(tmp_path):
    for name, letters in (("first", "abcdef "), ("second", "abcxyz ")):
        (tmp_path / name).write_text(letters * 300)
    before = config_of(tmp_path, *TEXT, f"task.path={tmp_path / 'first'}")
    run(before)
    words = [f"task.path={tmp_path / 'second'}", f"init_from={Run.of(before).folder}"]
    config = config_of(tmp_path, *TEXT, *words)
    assert config["task"]["characters"] == " abcdef"
    experiment = Experiment(config)
    assert experiment.initial.fresh == ()
    assert experiment.task.notes["unknown_test"] > 0


def test_words_with_other_meanings_are_refused(tmp_path):
    for name, text in (("first", "a b c d\n"), ("second", "b c d e\n")):
        (tmp_path / name).write_text(text * 300)
    words = ["task=word_file", "task.tokens=word", *TEXT[1:]]
    before = config_of(tmp_path, *words, f"task.path={tmp_path / 'first'}")
    run(before)
    more = [f"task.path={tmp_path / 'second'}", f"init_from={Run.of(before).folder}"]
    with pytest.raises(ConfigError, match="its words differs from that of this task"):
        run(config_of(tmp_path, *words, *more))


def test_options_without_weights_and_seeds_as_one_model_are_refused(parent, tmp_path):
    for word in ("init_freeze=[output]", "init_lr_scale=0.5"):
        with pytest.raises(ConfigError, match=r"needs init_from=RUN"):
            config_of(tmp_path, *GRU, word)
    with pytest.raises(ConfigError, match="got an empty value"):
        config_of(tmp_path, *GRU, "init_from=")
    with pytest.raises(ConfigError, match="init_lr_scale must be in"):
        child(parent, tmp_path, "init_lr_scale=-1")
    configs = [child(parent, tmp_path, f"seed={seed}") for seed in range(2)]
    with pytest.raises(ConfigError, match="does not go together with init_from"):
        run_seeds(configs, lambda config, shown: Observer())
