"""The weights of a run, scored on other data or with another memory."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose, with_other_values
from seqbench.errors import ConfigError, RunError
from seqbench.experiment import run
from seqbench.experiment.other_data import evaluate_on, other_task
from seqbench.experiment.saved_run import SavedRun
from seqbench.results.summary import evaluations
from seqbench.runs.evaluations import append_evaluation, read_evaluations
from seqbench.runs.run import Run

TEXT = "the cat sat on the mat and the dog sat on the log. " * 100
OTHER = "the dog sat on the mat, and THE cat sat on the log. " * 40
TRAINING = ["trainer.steps=4", "trainer.batch_size=8", "threads=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run on a text, trained once; the text lies beside it."""
    base = tmp_path_factory.mktemp("runs")
    (base / "my.txt").write_text(TEXT)
    (base / "other.txt").write_text(OTHER)
    words = ["model=gru", "model.hidden_size=8", "task=char_file", f"task.path={base}/my.txt"]
    config = compose([*words, "budget=smoke", *TRAINING, f"output_dir={base}"])
    run(config)
    return Run.of(config).folder


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of the run, whose text lies in the folder above."""
    shutil.copytree(trained, tmp_path / "run")
    for name in ("my.txt", "other.txt"):
        shutil.copyfile(trained.parents[3] / name, tmp_path / name)
    return tmp_path / "run"


def with_path(saved, path):
    """Return the run's config with another text, and the words for it."""
    words = f"task.path={path}"
    return with_other_values(saved.config, [words]), words


def invoke(*words: object):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, words)))


def test_another_text_is_read_with_the_characters_of_the_run(folder):
    saved, path = SavedRun(folder), folder.parent / "other.txt"
    changes, task = other_task(saved, *with_path(saved, path))
    assert changes == {"task.path": str(path)}
    assert task.vocabulary.characters == saved.vocabulary.characters
    part = OTHER[int(len(OTHER) * 0.95) :]
    assert task.texts["test"].tolist() == saved.vocabulary.encode(part).tolist()
    assert task.notes["unknown_test"] == sum(part.count(c) for c in ",THE") > 0
    # Its own vocabulary would have other sizes and ids.
    assert len(set(OTHER)) + 1 != len(saved.vocabulary)


def test_the_result_is_kept_beside_the_runs_own_score(folder):
    record, path = (folder / "record.json").read_bytes(), folder.parent / "other.txt"
    done = invoke("eval", folder, f"task.path={path}", "task.length=16", "--split", "valid")
    assert done.exit_code == 0
    assert "are unknown to the model" in done.stderr
    (kept,) = read_evaluations(folder / "evaluations.jsonl")
    assert json.loads(done.stdout) == {"split": "valid", "step": kept.step, **kept.metrics}
    assert kept.overrides == {"task.length": 16, "task.path": str(path)}
    assert list(kept.data) == ["other.txt"]
    assert (folder / "record.json").read_bytes() == record
    digest = kept.data["other.txt"][:8]
    assert f"valid length=16, path=other.txt {digest}" in evaluations(folder, {})
    shown = " ".join(invoke("show", folder).stdout.split())
    assert f"path=other.txt {digest} bpc" in shown
    assert f"unknown characters {kept.unknown}" in shown


def test_the_same_evaluation_is_kept_once(folder):
    for length in (16, 64, 16):
        done = invoke("eval", folder, f"task.length={length}")
        assert (done.exit_code, done.stderr) == (0, "")
    kept = read_evaluations(folder / "evaluations.jsonl")
    assert [e.overrides["task.length"] for e in kept] == [16, 64]
    assert kept[0].metrics != kept[1].metrics


def test_overrides_that_change_nothing_give_the_runs_own_score(folder):
    copy = folder.parent / "copy.txt"
    shutil.copyfile(folder.parent / "my.txt", copy)
    saved = SavedRun(folder)
    length = saved.config["task"]["length"]
    own = json.loads(invoke("eval", folder).stdout)
    again = json.loads(invoke("eval", folder, f"task.path={copy}", f"task.length={length}").stdout)
    assert again == own
    assert own["bpc"] == saved.run.record.metrics["test"]["bpc"]
    assert not (folder / "evaluations.jsonl").exists()


def test_a_text_that_was_edited_is_another_one(folder):
    saved = SavedRun(folder)
    path = folder.parent / "again.txt"
    saved.config["task"]["path"] = str(path)
    path.write_text(OTHER)
    changes, task = other_task(saved, *with_path(saved, path))
    assert changes == {"task.path": str(path)}
    assert task.vocabulary.characters == saved.vocabulary.characters


def test_a_text_may_be_shorter_than_a_training_batch(folder):
    short = folder.parent / "short.txt"
    short.write_text(TEXT[:150])
    saved = SavedRun(folder)
    assert saved.trainer.batch_size * saved.spec.length > 150
    assert evaluate_on(saved, [f"task.path={short}", "task.length=24"], "test").metrics["bpc"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model.hidden_size=9", "expected task.KEY=VALUE, got 'model.hidden_size=9'"),
        ("task=adding", "expected task.KEY=VALUE, got 'task=adding'"),
        ("task._target_=os.system", "expected task.KEY=VALUE, got"),
        ("task.length", "expected task.KEY=VALUE, got 'task.length'"),
        ("task.lenght=9", "no key 'task.lenght' (did you mean 'task.length'?)"),
        ("task.length=9,10", "a run takes one task.length, not '9,10'"),
        ("task.length=ten", "task.length must be int, not 'ten'"),
        ("task.characters=ab", "task.characters=ab gives input Tokens(vocab_size=3), and the"),
        ("task.characters='{}'", "gives another vocabulary than the model was trained with"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, words, said):
    saved = SavedRun(folder)
    others = "".join(map(chr, range(97, 96 + len(saved.vocabulary))))
    with pytest.raises(ConfigError) as caught:
        evaluate_on(saved, [words.replace("{}", others)], "test")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_read_the_length_is_one_line(folder):
    saved = SavedRun(folder)

    def positions(model, inputs):
        if inputs[0].shape[1] > saved.spec.length:
            raise IndexError("index out of range in self")

    saved.model.register_forward_pre_hook(positions)
    evaluate_on(saved, ["task.context=1"], "test")
    with pytest.raises(RunError, match=r"the model failed with task\.length=64: index out of"):
        evaluate_on(saved, ["task.length=64"], "test")


@pytest.mark.parametrize("obstacle", ["folder", "link"])
def test_a_result_that_cannot_be_recorded_is_printed(folder, obstacle):
    path, elsewhere = folder / "evaluations.jsonl", folder.parent / "elsewhere"
    if obstacle == "folder":
        path.mkdir()
    else:
        path.symlink_to(elsewhere)
    done = invoke("eval", folder, "task.length=16")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["bpc"] > 0
    assert "note: the result is not recorded: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not elsewhere.exists()


@pytest.fixture(scope="module")
def with_memory(tmp_path_factory):
    """Return a run of Transformer-XL with a memory of 8, trained once."""
    base = tmp_path_factory.mktemp("memory")
    (base / "my.txt").write_text(TEXT * 8)  # each row of an evaluation has several segments
    words = ["model=transformer_xl", "model.dim=8", "model.num_layers=2", "model.num_heads=2"]
    words += ["model.memory=8", "task=char_file", f"task.path={base}/my.txt", "budget=smoke"]
    config = compose([*words, "task.length=8", "task.context=0", *TRAINING, f"output_dir={base}"])
    run(config)
    return SavedRun(Run.of(config).folder)


def test_a_run_is_scored_at_other_lengths_of_its_memory(with_memory):
    scores = {}
    for memory in (0, 4, 8, 32):
        found = evaluate_on(with_memory, [f"model.eval_memory={memory}"], "test")
        assert found.overrides == {"model.eval_memory": memory}
        scores[memory] = found.metrics["bpc"]
    own = with_memory.run.record.metrics["test"]["bpc"]
    assert scores[8] == own
    assert len({*scores.values()}) == 4
    both = evaluate_on(with_memory, ["model.eval_memory=4", "task.length=4"], "test")
    assert both.overrides == {"task.length": 4, "model.eval_memory": 4}
    assert both.metrics["bpc"] not in scores.values()
    # The run's own model stays as it was.
    assert with_memory.evaluate("test")["bpc"] == own


def test_the_command_keeps_scores_at_other_lengths_of_the_memory(with_memory):
    folder = with_memory.run.folder
    done = invoke("eval", folder, "model.eval_memory=32", "--split", "valid")
    (kept,) = read_evaluations(folder / "evaluations.jsonl")
    assert json.loads(done.stdout) == {"split": "valid", "step": kept.step, **kept.metrics}
    assert "valid eval_memory=32" in evaluations(folder, {})
    done = invoke("eval", folder, "model.eval_memory=null")
    assert json.loads(done.stdout)["bpc"] == with_memory.run.record.metrics["test"]["bpc"]
    assert read_evaluations(folder / "evaluations.jsonl") == [kept]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.dim=4", "expected task.KEY=VALUE or model.eval_memory=VALUE, got 'model.dim=4'"),
        ("model.eval_memory=x", "model.eval_memory must be int or null, not 'x'"),
        ("model.eval_memory=-1", "model.eval_memory must be at least 0, not -1"),
        ("model.eval_memory=1,2", "a run takes one model.eval_memory, not '1,2'"),
    ],
)
def test_other_values_of_a_model_are_refused_in_one_line(with_memory, word, said):
    with pytest.raises(ConfigError) as caught:
        evaluate_on(with_memory, [word], "test")
    assert said in str(caught.value)


def test_lines_that_are_no_evaluations_are_skipped(folder):
    kept = evaluate_on(SavedRun(folder), ["task.length=16"], "test")
    path = folder / "evaluations.jsonl"
    path.write_bytes(b'{"split": "test"}\n[1]\n\xff\n{"split"')  # the last is cut off
    append_evaluation(path, kept)
    assert read_evaluations(path) == [kept]
    Run(folder).start_over()
    assert not path.exists(), "they are of other weights"
