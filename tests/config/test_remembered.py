"""Unchanged code that the user typed on this machine is trusted; other code of a run is not."""

import json
import sys

import pytest
import yaml

from seqbench.config.compose import compose
from seqbench.config.remembered import config_dir_of, memory, remember
from seqbench.config.trust import read
from seqbench.errors import ConfigError
from seqbench.runs.run import Run

CODE = "class Mine:\n    def __init__(self, spec, hidden_size: int, scale: float = 1.0): ...\n"
EVIL = f"open('pwned', 'w').close()\n{CODE}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a user's folder with a model and its choice; it is the current folder."""
    folder = tmp_path / "project"
    (folder / "own" / "model").mkdir(parents=True)
    (folder / "own" / "model" / "mine.yaml").write_text(
        "_target_: typed_by_me.Mine\n_partial_: true\nhidden_size: 4\n"
    )
    (folder / "typed_by_me.py").write_text(CODE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("typed_by_me", None)


@pytest.fixture
def typed(project):
    """Return the config of a run that the user has typed, in a run folder."""
    config = compose(["model=mine", "task=adding"], "own")
    run = Run(project / "run")
    run.folder.mkdir()
    run.write_config(config)
    return run.folder / "config.yaml"


def refused(path):
    """Assert that a config is refused, and that no code was run for it."""
    sys.modules.pop("typed_by_me", None)  # as in another process
    with pytest.raises(ConfigError, match=r"--trust typed_by_me\.Mine"):
        read(path)
    assert "typed_by_me" not in sys.modules


def test_what_was_typed_needs_no_trust(typed):
    assert read(typed)["model"]["_target_"] == "typed_by_me.Mine"


def test_without_the_memory_it_is_refused(typed):
    assert memory().parent.stat().st_mode & 0o077 == 0
    memory().unlink()
    refused(typed)


@pytest.mark.parametrize("line", ["{", "7", '{"targets": 1}', '{"targets": "x", "digest": []}', ""])
def test_a_damaged_memory_trusts_nothing_more(line, typed):
    text = memory().read_text()
    memory().write_text(f"{line}\n{text}{line}\n")
    assert read(typed)
    memory().write_text(f"{line}\n")
    refused(typed)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 5},
        {"scale": 1.0},
        {"scale": {"_target_": "os.system", "command": "touch pwned"}},
        {"_partial_": False},
    ],
)
def test_other_values_are_refused(change, typed, project):
    config = yaml.safe_load(typed.read_text())
    config["model"] |= change
    typed.write_text(yaml.safe_dump(config))
    refused(typed)
    assert not (project / "pwned").exists()


def test_another_node_with_the_same_code_is_refused(typed):
    config = yaml.safe_load(typed.read_text())
    config["schedule"] = {"_target_": "typed_by_me.Mine"}
    typed.write_text(yaml.safe_dump(config))
    refused(typed)


def test_edited_code_is_refused_until_it_is_typed_again(typed, project):
    (project / "typed_by_me.py").write_text(f"# A comment is no code.\n{CODE}")
    assert read(typed)
    (project / "typed_by_me.py").write_text(EVIL)
    refused(typed)
    assert not (project / "pwned").exists()


def test_code_that_it_imports_counts(project, typed):
    (project / "typed_by_me.py").write_text(
        f"try:\n    import more\nexcept ImportError: ...\n{CODE}"
    )
    compose(["model=mine", "task=adding", "model.hidden_size=6"], "own")
    sys.modules.pop("typed_by_me", None)
    config = yaml.safe_load(typed.read_text())
    config["model"]["hidden_size"] = 6
    typed.write_text(yaml.safe_dump(config))
    assert read(typed)
    (project / "more.py").write_text(EVIL)
    refused(typed)
    assert not (project / "pwned").exists()


def test_the_same_code_in_a_folder_from_elsewhere_is_refused(typed, project, tmp_path, monkeypatch):
    sent = tmp_path / "sent"
    (sent / "run").mkdir(parents=True)
    (sent / "run" / "config.yaml").write_bytes(typed.read_bytes())
    (sent / "typed_by_me.py").write_text(CODE)
    (sent / "state" / "seqbench").mkdir(parents=True)
    (sent / "state" / "seqbench" / memory().name).write_bytes(memory().read_bytes())
    monkeypatch.chdir(sent)
    refused(sent / "run" / "config.yaml")


def test_an_entry_is_written_once(project, typed):
    entry = json.loads(memory().read_text())
    assert entry["targets"] == ["typed_by_me.Mine"]
    remember(compose(["model=mine", "task=adding", "seed=3"], "own"), "own")
    assert len(memory().read_text().splitlines()) == 1
    assert config_dir_of("model", "mine", "typed_by_me.Mine") == str(project / "own")
    assert config_dir_of("model", "other", "typed_by_me.Mine") is None
    assert config_dir_of("model", "mine", "typed_by_me.Other") is None


def test_packaged_code_is_not_remembered(project):
    compose(["model=gru", "task=copy"])
    assert not memory().exists()


def test_a_state_folder_that_cannot_be_written_is_no_error(project, monkeypatch):
    (project / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "file"))
    assert compose(["model=mine", "task=adding", "model.hidden_size=7"], "own")
