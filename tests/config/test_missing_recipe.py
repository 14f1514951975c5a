import pytest

from seqbench.cli.sweep_view import Terminal
from seqbench.config.compose import compose
from seqbench.config.missing_recipe import missing_recipes
from seqbench.launch.job import Job
from seqbench.runs.run import Run

OWN = "_target_: seqbench.models.rnn.GRU\nhidden_size: 4\nnum_layers: 1\ndropout: 0.0\n"
OWN += "embedding_dim: null\ntied: false\nforget_bias: 1.0\nchrono: null\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(OWN)
    return str(tmp_path)


def notes(*words, folder):
    return missing_recipes([compose(["model=mine", *words], folder)], words, folder)


def test_a_pair_without_a_recipe_is_told_what_is_used(folder):
    (name, note), *more = notes("task=copy", folder=folder).items()
    assert (name, more) == ("copy_mine", [])
    assert "no recipe for mine on copy: Adam with learning rate 0.001, constant schedule" in note
    assert "no gradient clipping" in note
    assert f"write {folder}/recipe/copy_mine.yaml" in note
    typed = ["optimizer=sgd", "optimizer.lr=0.5", "trainer.clip=2", "schedule=cosine"]
    (note,) = notes("task=copy", *typed, folder=folder).values()
    assert "SGD with learning rate 0.5, cosine schedule, gradients clipped at 2" in note


def test_nothing_is_said_of_a_recipe_that_is_there_or_was_declined(folder, tmp_path):
    assert notes("task=copy", "recipe=none", folder=folder) == {}
    (tmp_path / "recipe" / "copy_mine.yaml").write_text("# @package _global_\ntrainer: {clip: 1}")
    assert notes("task=copy", folder=folder) == {}
    known = [compose([f"model={model}", "task=copy"]) for model in ("tcn", "lstm", "gru")]
    assert missing_recipes(known, [], None) == {}


def test_a_sweep_says_it_once_for_each_pair(folder, capsys):
    words = [
        [f"task={task}", f"seed={seed}", f"optimizer.lr={0.1 + seed}", f"output_dir={folder}"]
        for task in ("copy", "adding")
        for seed in (0, 1)
    ]
    configs = [compose(["model=mine", *some], folder) for some in words]
    jobs = [Job((), config, Run.of(config), Run.of(config).folder) for config in configs]
    view = Terminal([], folder)
    for some in (jobs[:3], jobs):
        view.planned(some)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "mine on copy: optimizer and clipping as typed" in lines[0]
