"""A classifier of texts starts from a language model, and classifies other files."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.errors import ConfigError, DataError
from seqbench.experiment import run
from seqbench.experiment.build import Experiment
from seqbench.experiment.classifying import classify
from seqbench.experiment.other_data import evaluate_file, evaluate_on
from seqbench.experiment.saved_run import SavedRun
from seqbench.runs.run import Run
from seqbench.training import checkpoint

MODELS = {
    "gru": ["model.hidden_size=6", "model.num_layers=2"],
    "tcn": ["model.channels=[6,6]", "model.kernel_size=3"],
    "llama": ["model.dim=8", "model.num_heads=2", "model.num_layers=2", "model.hidden_dim=12"],
}
SMALL = ["recipe=none", "threads=1", "device=cpu", "trainer.batch_size=8", "optimizer.lr=0.03"]
GOOD, BAD = ("정말 좋다", "최고, 또 보자"), ("지루하다", "최악 ㅠㅠ")


def table(path, seed=0, label="ok"):
    random = np.random.RandomState(seed)
    rows = [(f"{(BAD, GOOD)[i % 2][random.randint(2)]}{'!' * (i % 4)}", i % 2) for i in range(60)]
    lines = [f'"{text}"' + (f",{('부정', '긍정')[y]}" if label else "") for text, y in rows]
    path.write_text("\n".join(["review" + (f",{label}" if label else ""), *lines, ""]), "utf-8")
    return path


def text_words(folder, model):
    words = ["task=sentiment_file", f"task.path={folder / 'my.csv'}", "task.text=review"]
    words += ["task.label=ok", f"model={model}", *MODELS[model], *SMALL, f"output_dir={folder}"]
    return words


@pytest.fixture(scope="module", params=MODELS)
def pretrained(request, tmp_path_factory):
    """A language model of each kind on a text, beside a table of labelled texts."""
    folder, model = tmp_path_factory.mktemp("texts"), request.param
    table(folder / "my.csv")
    text = folder / "my.txt"
    text.write_text("좋다 최고, 또 보자 지루하다 최악\n" * 60, "utf-8")
    words = ["task=char_file", f"task.path={text}", "task.length=20", "task.context=4"]
    words += [f"model={model}", *MODELS[model], *SMALL, "trainer.steps=6"]
    config = compose([*words, f"output_dir={folder}"])
    run(config)
    return folder, model, Run.of(config).folder


def test_all_weights_of_a_language_model_but_its_output_layer_are_loaded(pretrained):
    folder, model, parent = pretrained
    config = compose([*text_words(folder, model), f"init_from={parent}", "trainer.steps=1"])
    experiment = Experiment(config)
    output = {"output.weight", "output.bias"}
    assert set(experiment.initial.fresh) <= output
    assert set(experiment.initial.unused) <= output
    assert experiment.initial.fresh
    given, facts = checkpoint.load(parent / "checkpoints" / checkpoint.BEST)
    for name, tensor in experiment.state.model.state_dict().items():
        if name not in output:
            assert torch.equal(tensor, given[f"model.{name}"])
    kept = experiment.task.preprocessing()
    assert kept["vocabulary"] == facts["preprocessing"]["vocabulary"]
    assert experiment.task.notes["unknown_train"] > 0  # such as 정말 and !


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on labelled texts, whose file is gone."""
    folder = tmp_path_factory.mktemp("trained")
    path = table(folder / "my.csv")
    config = compose([*text_words(folder, "gru"), "trainer.steps=60"])
    assert run(config).metrics["test"]["accuracy"] == 1
    path.unlink()
    return Run.of(config).folder


def test_new_texts_are_classified_without_the_training_file(trained, tmp_path):
    path = table(tmp_path / "new.csv", seed=1, label="")
    (found,) = classify(SavedRun(trained), str(path))
    assert list(found) == ["review", "class", "probability_긍정", "probability_부정"]
    expected = ["긍정" if text.startswith(GOOD) else "부정" for text in found["review"]]
    assert found["class"].tolist() == expected
    score = evaluate_file(SavedRun(trained), str(table(tmp_path / "more.csv", seed=2)))
    assert score.metrics["accuracy"] == 1
    assert score.naive == {"majority class": 0.5}


def test_predictions_of_the_test_have_the_names_of_the_classes(trained, tmp_path, monkeypatch):
    path = table(tmp_path / "new.csv", seed=1)
    parts = []
    evaluate_file(SavedRun(trained), str(path), parts.append)
    assert set(parts[0]["prediction"]) == {"긍정", "부정"}
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["predict", str(trained), "--input", str(path)])
    assert done.stdout.splitlines()[0] == "review,class,probability_긍정,probability_부정"
    assert len(done.stdout.splitlines()) == 61


def test_another_setting_of_the_task_keeps_the_characters_that_the_model_knows(trained, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("review,ok\n" + "정말 좋다,긍정\n지루하다 zz,부정\n" * 20, "utf-8")
    score = evaluate_on(SavedRun(trained), [f"task.path={other}"], "test")
    assert score.notes["test_sequences"] == 8
    assert score.notes["unknown_test"] == 8
    assert score.metrics["accuracy"] == 1


def test_files_and_commands_that_do_not_fit_are_refused_in_one_line(trained, tmp_path):
    path = table(tmp_path / "new.csv", label="")
    with pytest.raises(ConfigError, match=r"task\.label: .* no column 'ok'.*a new file has the"):
        evaluate_file(SavedRun(trained), str(path))
    other = tmp_path / "other.csv"
    other.write_text("review,ok\n좋다,보통\n", "utf-8")
    with pytest.raises(DataError, match="class '보통' of test is not in the training"):
        evaluate_file(SavedRun(trained), str(other))
    with pytest.raises(ConfigError, match="generate needs a language model"):
        next(SavedRun(trained).generate("좋다", 5, 0.8, 0))
