"""Compiling our own C++, with the compiler of this machine and with ones that have their faults."""

import os
import shutil
import stat
import subprocess
import sys

import pytest

from seqbench.compiled import NotCompiled, library, outcome

REAL = shutil.which("c++")
ANSWER = 'extern "C" long answer() { return 42; }\n'

pytestmark = pytest.mark.skipif(REAL is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """A user's cache folder of each test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    outcome.cache_clear()
    yield folder
    outcome.cache_clear()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "answer.cpp"
    path.write_text(ANSWER)
    return path


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Put a shell script before the compiler; gives the commands that it was called with."""
    log = tmp_path / "calls"

    def use(script):
        path = tmp_path / "cc"
        path.write_text(f'#!/bin/sh\necho "$@" >> {log}\n{script}\nexec {REAL} "$@"\n')
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return lambda: [line for line in log.read_text().splitlines() if " -o " in line]

    return use


def test_a_file_is_compiled_once_and_its_functions_can_be_called(source, compiler):
    compilations = compiler("")
    assert library(source).answer() == 42
    outcome.cache_clear()  # as in another process
    assert library(source).answer() == 42
    assert len(compilations()) == 1


def test_a_changed_file_is_compiled_anew(source):
    assert library(source).answer() == 42
    source.write_text(ANSWER.replace("42", "43"))
    outcome.cache_clear()
    assert library(source).answer() == 43


def test_processes_that_compile_at_once_do_not_disturb_each_other(source, cache_folder):
    code = (
        "import sys, pathlib; from seqbench.compiled import library;"
        "assert library(pathlib.Path(sys.argv[1])).answer() == 42"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(source)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert len(list((cache_folder / "seqbench" / "compiled").iterdir())) == 1


def test_where_openmp_is_not_known_there_is_one_thread(source, compiler):
    compiler('case "$*" in *-fopenmp*) echo "unknown option" >&2; exit 1;; esac')
    assert library(source).answer() == 42


def test_what_the_compiler_says_is_told(source, compiler):
    compiler('echo "error: licence expired" >&2; exit 3')
    with pytest.raises(NotCompiled, match="error: licence expired"):
        library(source)


def test_what_failed_is_not_tried_again(source, tmp_path, compiler):
    compiler('case "$*" in *-shared*) echo "error: no linker" >&2; exit 1;; esac')
    for _ in range(3):
        with pytest.raises(NotCompiled, match="no linker"):
            library(source)
    assert len((tmp_path / "calls").read_text().splitlines()) == 4  # asked and tried, two ways


@pytest.mark.parametrize("name", ["/nowhere/c++", "false"])
def test_a_compiler_that_is_not_there_is_named(source, monkeypatch, name):
    monkeypatch.setenv("CXX", name)
    with pytest.raises(NotCompiled, match=name):
        library(source)


def test_a_kept_file_that_is_torn_is_made_anew(source, compiler, cache_folder):
    compilations = compiler("")
    library(source)
    outcome.cache_clear()
    (kept,) = (cache_folder / "seqbench" / "compiled").iterdir()
    kept.unlink()  # the old one is still mapped into this process
    kept.write_bytes(b"torn")
    assert library(source).answer() == 42
    assert len(compilations()) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_folder_that_cannot_be_written_is_done_without(source, cache_folder):
    cache_folder.mkdir()
    cache_folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    assert library(source).answer() == 42


def test_a_cache_folder_that_is_a_file_is_done_without(source, cache_folder):
    cache_folder.write_text("")
    assert library(source).answer() == 42
