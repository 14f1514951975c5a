import os
from pathlib import Path

import pytest

from seqbench.config.compose import compose
from seqbench.datasets.download import data_folder
from seqbench.datasets.text import load_text_file
from seqbench.errors import ConfigError
from seqbench.kernels.build import user_cache
from seqbench.user_files import expand_home, sha256_of


@pytest.fixture
def homeless(monkeypatch):
    """Give this process no home folder, as that of an unknown user in a container has none."""
    for name in ("HOME", "XDG_CACHE_HOME", "SEQBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)


def test_a_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/data") == Path("/home/me/data")
    assert expand_home("~") == Path("/home/me")
    assert expand_home("a/~/b") == Path("a/~/b")


@pytest.mark.parametrize("path", ["~/o", "~nouser/o"])
def test_an_unknown_home_folder_costs_one_line(path, homeless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: expand_home(path),
        lambda: data_folder(path),
        lambda: load_text_file(path),
        lambda: compose([f"output_dir={path}"]),
        lambda: compose([f"data_dir={path}"]),
        lambda: compose(["task=char_file", f"task.path={path}"]),
    ):
        with pytest.raises(ConfigError, match=f"no home folder {path[:-2]} is known") as error:
            call()
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2
    with pytest.raises(ConfigError, match="set SEQBENCH_DATA"):
        data_folder()
    assert user_cache() is None  # kernels are compiled, and not kept


def test_a_name_that_begins_with_a_tilde_and_dollar_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$draft.txt").write_text("a text " * 100)
    assert load_text_file("~$draft.txt").train.startswith("a text")
    config = compose(["task=char_file", "task.path='~$draft.txt'"])
    assert config["task"]["path"] == str(tmp_path / "~$draft.txt")


def test_a_text_is_read_once_by_the_process_that_plans(tmp_path, monkeypatch):
    path = tmp_path / "my.txt"
    path.write_text("a text " * 100)
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or read_bytes(self))
    words = ["task=char_file", f"task.path={path}"]
    configs = [compose([*words, f"seed={seed}"]) for seed in range(3)]
    assert reads.count(path) == 1
    assert len({config["task"]["sha256"] for config in configs}) == 1
    path.write_text("b text " * 100)
    os.utime(path, ns=(0, 0))
    assert sha256_of(path) != configs[0]["task"]["sha256"]


@pytest.mark.parametrize("key", ["output_dir", "data_dir"])
def test_a_path_that_is_no_utf8_is_refused(key):
    with pytest.raises(ConfigError, match=rf"{key} must be UTF-8, and '/tmp/\\udcff' is not"):
        compose([f"{key}=/tmp/\udcff"])
