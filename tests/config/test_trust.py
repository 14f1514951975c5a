import sys
from pathlib import Path

import pytest
import yaml

from seqbench.config.build import build
from seqbench.config.compose import compose
from seqbench.config.trust import read
from seqbench.errors import ConfigError
from seqbench.runs.run import Run

CONFIG = compose(["model=lstm", "task=char_file"])


def saved(tmp_path, **nodes):
    """Write a run folder's config, with some nodes changed."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **nodes}))
    return path


def test_what_a_run_keeps_reads_back(tmp_path):
    config = compose(["model=llama", "task=copy", "optimizer=adamw", "schedule=step"])
    run = Run(tmp_path)
    run.write_config(config)
    assert read(tmp_path / "config.yaml") == config


# Importing or calling any of these leaves a trace: the file `pwned` in the current folder.
EVIL = "open('pwned', 'w').close()\ndef call(*args, **kwargs): open('pwned', 'w').close()\n"


@pytest.mark.parametrize(
    "hostile",
    [
        {"_target_": "os.system", "command": "touch pwned"},
        {"_target_": "torch.optim.optimizer.torch.os.system", "command": "touch pwned"},
        {"_target_": "seqbench.machine.os.system", "command": "touch pwned"},
        {"_target_": "seqbench.training.state.random.os.system", "command": "touch pwned"},
        {"_target_": "builtins.eval", "_args_": ["open('pwned', 'w')"]},
        {"_target_": "evil_module.call"},
        {"_target_": "evil_module"},
        {"_target_": "seqbench.config.schema._locate", "path": "evil_module"},
        {"_target_": "seqbench.config.schema.import_target", "target": "evil_module", "name": "x"},
        {"_target_": "seqbench.cli.main.main"},
        {"_target_": "seqbench_evil.Model"},
        {"_target_": "torch.optimal.Model"},
        {"_target_": "torch.optim"},
        {"_target_": "torch.optim.Nothing"},
        {"_target_": ""},
        {"_target_": ["os.system"]},
        {"_target_": {"_target_": "os.system"}},
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda hostile: {"schedule": hostile},
        lambda hostile: {
            "optimizer": {"_target_": "torch.optim.Optimizer", "defaults": {"a": hostile}}
        },
        lambda hostile: {"recipe": {"expected": [1, [{"a": hostile}]]}},
    ],
)
def test_hostile_code_in_a_run_folder_is_refused_and_not_run(place, hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(EVIL)
    (tmp_path / "seqbench_evil.py").write_text(EVIL)
    with pytest.raises(ConfigError) as caught:
        read(saved(tmp_path, **place(hostile)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "a/${oc.env:HOME}/b",
        "${oc.create:{_target_:evil_module.call}}",
        '${oc.decode:"{_target_: evil_module.call}"}',
        "${seed}",
    ],
)
def test_interpolations_in_a_run_folder_are_not_resolved(text, tmp_path, monkeypatch):
    # Hydra resolves strings when it builds what they are arguments of.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_module.py").write_text(EVIL)
    task = {**CONFIG["task"], "path": text}
    with pytest.raises(ConfigError, match="refers to something outside"):
        build("task", read(saved(tmp_path, task=task)), batch_size=1, seed=0, data_dir=None)
    assert not (tmp_path / "pwned").exists()


def test_the_users_word_lets_a_run_name_other_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trusted_by_name.py").write_text("class Model: ...\n")
    path = saved(tmp_path, model={"_target_": "trusted_by_name.Model"})
    with pytest.raises(ConfigError, match=r"--trust trusted_by_name\.Model"):
        read(path)
    for named in ("trusted_by_name", "trusted_by_name.Model"):
        assert read(path, [named])["model"] == {"_target_": "trusted_by_name.Model"}
    with pytest.raises(ConfigError, match="--trust"):
        read(path, ["trusted_by"])  # a prefix of the name is another name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "text",
        "a: [",
        "a: &a [*a]",
        "[" * 700,
        "!!python/object/apply:os.system ['touch pwned']",
        "seed: 0",
        b"\xff\xfe",
    ],
)
def test_a_run_folder_with_another_file_in_its_place(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("config.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


def test_a_run_folder_without_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="there is no"):
        read(tmp_path / "config.yaml")
