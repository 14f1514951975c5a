"""Runs on words and byte pairs: scored again, on another text, and continued."""

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
from seqbench.runs.run import Run
from seqbench.training import checkpoint

TEXT = "the cat sat on the mat and the dog sat on the log .\n" * 100
OTHER = "the dog sat on the mat , and the BIRD sat on 2 logs .\n" * 40


@pytest.fixture(scope="module", params=["word", "bpe"])
def folder(request, tmp_path_factory):
    """Return the folder of a run without its text; another text lies beside it."""
    base = tmp_path_factory.mktemp("runs")
    (base / "my.txt").write_text(TEXT)
    (base / "other.txt").write_text(OTHER)
    words = ["task=word_file", f"task.tokens={request.param}", f"task.path={base}/my.txt"]
    words += ["model=gru", "model.hidden_size=8", "task.min_count=1"]
    words += ["task.vocab_size=280"] if request.param == "bpe" else []
    config = compose([*words, "budget=smoke", "trainer.steps=6", "threads=1", f"output_dir={base}"])
    record = run(config)
    saved = SavedRun(Run.of(config).folder)
    assert saved.evaluate("test") == record.metrics["test"]
    (base / "my.txt").unlink()
    return saved.run.folder


def other(folder):
    return folder.parents[3] / "other.txt"


def invoke(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, words)))


def test_words_are_joined_and_line_ends_are_written(folder):
    saved = SavedRun(folder)
    options = {"length": 300, "temperature": 1e6, "seed": 0}
    written = "".join(saved.generate("the cat", **options))
    assert "\n" in written
    assert written == "".join(saved.generate("the cat", **options))
    if saved.config["task"]["tokens"] == "word":
        assert set(written.split()) <= set(TEXT.split())
        assert "  " not in written
        assert written[0] in " \n"
        assert "".join(saved.generate("the ", **options))[0] != " "


def test_a_character_of_several_bytes_is_written_as_a_whole(folder, monkeypatch):
    saved = SavedRun(folder)
    if saved.config["task"]["tokens"] == "word":
        pytest.skip("words have no bytes")
    ids = iter([*"é한🙂".encode(), 0xC3])

    def choose(logits, *_):
        return logits.argmax()[None] * 0 + next(ids)

    monkeypatch.setattr("seqbench.experiment.saved_run.choose", choose)
    assert list(saved.generate("the", 10, 0, 0)) == ["é", "한", "🙂", "\ufffd"]


def test_a_prompt_says_which_words_are_unknown(folder):
    done = invoke("generate", folder, "--prompt", "the bird", "--length", 3)
    assert done.exit_code == 0
    assert done.stdout.startswith("the bird")
    is_word = SavedRun(folder).config["task"]["tokens"] == "word"
    note = "note: 1 of the prompt's words are unknown to the model\n"
    assert done.stderr == (note if is_word else "")
    if is_word:
        error = invoke("generate", folder, "--prompt", "bird").exception
        assert isinstance(error, ConfigError)
        assert str(error).startswith("the prompt needs at least one word")


def test_another_text_is_read_with_the_tokens_of_the_run(folder):
    saved = SavedRun(folder)
    word = f"task.path={other(folder)}"
    changes, task = other_task(saved, with_other_values(saved.config, [word]), word)
    assert changes == {"task.path": str(other(folder))}
    assert task.vocabulary.names == saved.vocabulary.names
    part = OTHER[int(len(OTHER) * 0.95) :][:2000]
    assert task.texts["test"].tolist() == saved.vocabulary.encode(part).tolist()
    done = invoke("eval", folder, f"task.path={other(folder)}")
    assert {"perplexity", "cross_entropy", "bpc", "accuracy"} < json.loads(done.stdout).keys()
    is_word = saved.config["task"]["tokens"] == "word"
    assert ("of the test text's words are unknown to the model" in done.stderr) == is_word


def test_another_tokenization_is_one_line(folder):
    with pytest.raises(ConfigError, match="gives input Tokens"):
        evaluate_on(SavedRun(folder), [f"task.path={other(folder)}", "task.vocab_size=260"], "test")


def test_predictions_have_the_texts_of_tokens(folder, tmp_path):
    overrides = [f"task.path={other(folder)}"]
    done = invoke("eval", folder, *overrides, "--predictions", tmp_path / "p.csv")
    assert done.exit_code == 0
    lines = (tmp_path / "p.csv").read_text().splitlines()
    names = {"word": "sat", "bpe": " sat"}
    assert any(f",{names[SavedRun(folder).config['task']['tokens']]}," in line for line in lines)


def test_damaged_tokens_are_one_line(folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    best = copy / "checkpoints" / checkpoint.BEST
    tensors, facts = checkpoint.load(best)
    (key,) = facts["preprocessing"]
    checkpoint.save(best, tensors, facts | {"preprocessing": {key: {"a": 1}}})
    with pytest.raises(RunError, match="kept with the weights are damaged"):
        _ = SavedRun(copy).vocabulary
