"""Compiling and calling kernels, with this machine's compiler and with ones that have faults."""

import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from commands import forked

from seqbench.kernels import build
from seqbench.kernels.build import Arguments, Library, NotCompiled, compiled

REAL = shutil.which("c++")
# A kernel that adds `amount` to a value.
ANSWER = f"""
#include "{build.SOURCES}/arguments.h"
ARGUMENTS(Sum, int64_t threads; double amount; Real *value; void *workspace;)
template <class Real> struct Add {{
    const Sum<Real> &a;
    double *copy;
    Add(const Sum<Real> &a, Workspace &workspace) : a(a), copy(workspace.take<double>(1)) {{}}
    void run() const {{ *copy = a.amount, *a.value += *copy; }}
}};
EXPORT(add, Sum<REAL>, Add<REAL>)
"""

pytestmark = pytest.mark.skipif(
    REAL is None or bool(os.environ.get("CXX")), reason="for the C++ compiler of the system"
)


def library(source):
    found = compiled(source, "float")
    if isinstance(found, NotCompiled):
        raise found
    return found


def answer(found: Library, amount: float = 2) -> float:
    value = torch.tensor([40.0])
    found.call("add", "Sum", amount=amount, value=value)
    return value.item()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Give each test a cache folder of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    compiled.cache_clear()
    yield folder
    compiled.cache_clear()


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
    assert answer(library(source)) == 42
    compiled.cache_clear()  # as in another process
    assert answer(library(source)) == 42
    assert len(compilations()) == 1


def test_equal_files_of_two_folders_are_compiled_once(source, compiler, tmp_path):
    compilations = compiler("")
    (tmp_path / "other").mkdir()
    other = shutil.copy(source, tmp_path / "other")
    assert answer(library(source)) == answer(library(Path(other))) == 42
    assert len(compilations()) == 1


def test_a_changed_file_is_compiled_anew(source):
    assert answer(library(source)) == 42
    source.write_text(ANSWER.replace("+= *copy", "+= *copy + 1"))
    compiled.cache_clear()
    assert answer(library(source)) == 43


def test_other_flags_compile_anew(source, compiler, monkeypatch):
    """Include flags that define no macro."""
    compilations = compiler("")
    library(source)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-ffp-contract=fast"))
    compiled.cache_clear()
    library(source)
    assert len(compilations()) == 2


def compile_in(environment, source):
    os.environ.update(environment)
    library(source)


def test_processes_that_compile_at_once_wait_for_the_first(source, compiler, cache_folder):
    compilations = compiler("")
    processes = [forked(compile_in, dict(os.environ), source) for _ in range(4)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(compilations()) == 1
    assert len(list((cache_folder / "seqbench" / "compiled").glob("*.so"))) == 1


def test_where_openmp_is_not_known_there_is_one_thread(source, compiler):
    compiler('case "$*" in *-fopenmp*) echo "unknown option" >&2; exit 1;; esac')
    assert answer(library(source)) == 42


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
    compiled.cache_clear()
    (kept,) = (cache_folder / "seqbench" / "compiled").glob("*.so")
    kept.unlink()  # the old one is still mapped into this process
    kept.write_bytes(b"torn")
    assert answer(library(source)) == 42
    assert len(compilations()) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_folder_that_cannot_be_written_is_done_without(source, cache_folder):
    cache_folder.mkdir()
    cache_folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    assert answer(library(source)) == 42


def test_a_cache_folder_that_is_a_file_is_done_without(source, cache_folder):
    cache_folder.write_text("")
    assert answer(library(source)) == 42


def test_a_target_in_cxx_replaces_that_of_this_processor(source, compiler, monkeypatch):
    compilations = compiler("")
    monkeypatch.setenv("CXX", f"{os.environ['CXX']} -march=x86-64")
    assert library(source).vector_bytes == 16
    assert all("-march=native" not in command for command in compilations())


def test_fields_are_passed_by_name_whatever_their_order(source):
    source.write_text(ANSWER.replace("double amount; Real *value;", "Real *value; double amount;"))
    assert answer(library(source)) == 42


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("int64_t threads;", "int64_t threads; int32_t a, b, c;", "expected 56 bytes, got 48"),
        ("CONVENTION", "CONVENTION + 1", "expected calling convention 1, got 2"),
    ],
)
def test_a_library_with_another_convention_is_refused(source, before, after, message):
    text = ANSWER.replace(before, after)
    if before == "CONVENTION":
        header = (build.SOURCES / "arguments.h").read_text()
        header = header.replace("return CONVENTION;", "return CONVENTION + 1;")
        header = header.replace('"vector.h"', f'"{build.SOURCES}/vector.h"')
        source.with_name("arguments.h").write_text(header)
        text = ANSWER.replace(f"{build.SOURCES}/arguments.h", "arguments.h")
    source.write_text(text)
    with pytest.raises((NotCompiled, OSError), match=message):
        answer(library(source))


def test_a_field_that_the_kernel_does_not_have_is_refused(source):
    with pytest.raises(TypeError, match="the kernel has no argument weight"):
        library(source).call("add", "Sum", weight=1)


def test_a_struct_is_read_from_its_declaration():
    layout = Arguments("int64_t threads, time; double eps; const Real *x, *w_ih; void *workspace;")
    assert layout.names == ["threads", "time", "eps", "x", "w_ih", "workspace"]
    assert layout.format.format == "=qqdqqq"
    x = torch.zeros(3)
    packed = layout.format.unpack(layout.pack({"time": 7, "eps": 0.5, "x": x, "w_ih": None}))
    assert packed == (0, 7, 0.5, x.data_ptr(), 0, 0)


def test_running_out_of_memory_is_an_exception(source):
    source.write_text(ANSWER.replace("take<double>(1)", "take<double>(int64_t(1) << 50)"))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        answer(library(source))
