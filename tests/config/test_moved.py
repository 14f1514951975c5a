"""A run whose data have moved: the same run, with its data at another place."""

import json

import pytest
from typer.testing import CliRunner

from seqbench.cli.main import app
from seqbench.config.compose import compose
from seqbench.config.moved import with_data_at
from seqbench.errors import ConfigError, DataError
from seqbench.experiment import run
from seqbench.runs.config_file import read_config
from seqbench.runs.identity import run_id
from seqbench.runs.run import Run

SMALL = ["model=gru", "model.hidden_size=4", "budget=smoke", "trainer.steps=4", "threads=1"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text("the cat sat on the mat. " * 400)
    return path


def test_a_run_goes_on_with_its_text_at_another_place(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose([*SMALL, "task=char_file", "task.path=my.txt"])
    record = run(config)
    folder = Run.of(config).folder
    (folder / "record.json").unlink()
    (tmp_path / "new place").mkdir()
    moved = text.rename(tmp_path / "new place" / "a, b.txt")
    monkeypatch.chdir(tmp_path / "new place")
    words = [str(tmp_path / folder), "task.path=a, b.txt"]
    scored = CliRunner().invoke(app, ["eval", *words])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["bpc"] == record.metrics["test"]["bpc"]
    resumed = CliRunner().invoke(app, ["train", "--resume", *words])
    assert resumed.exit_code == 0, resumed.output
    assert "next            seqbench table" in resumed.output  # task.path= alone trains nothing
    kept = read_config(tmp_path / folder / "config.yaml")
    assert kept["task"]["path"] == str(moved)
    assert run_id(kept) == record.run_id


def test_only_the_same_text_is_taken(text, tmp_path):
    config = compose([*SMALL, "task=char_file", f"task.path={text}"])
    other = tmp_path / "other.txt"
    other.write_text("another text " * 400)
    digest = config["task"]["sha256"][:12]
    for word, error, reason in (
        (f"task.path={other}", ConfigError, f"expected SHA-256 {digest}, got "),
        (f"task.path={tmp_path / 'no.txt'}", DataError, r"no\.txt is not there"),
        (f"task.path={tmp_path}", DataError, "is not a file"),
        ("task.path=", ConfigError, "got no file"),
        ("task.length=3", ConfigError, r"expected data_dir= or task\.path=, got 'task\.length=3'"),
        ("my.txt", ConfigError, r"expected data_dir= or task\.path=, got 'my\.txt'"),
    ):
        with pytest.raises(error, match=reason) as caught:
            with_data_at(config, [word])
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"task reads no such file: omit task\.path="):
        with_data_at(compose([*SMALL, "task=adding"]), [f"task.path={text}"])


def test_a_relative_path_is_kept_in_full_with_its_digest_given(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = compose(["task=char_file", "task.path=my.txt"])
    digest = first["task"]["sha256"]
    assert compose(["task=char_file", "task.path=my.txt", f"task.sha256={digest}"]) == first
    assert first["task"]["path"] == str(text)
