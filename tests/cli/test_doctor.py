import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from record_factory import make_record, write_run
from typer.testing import CliRunner

from seqbench.bench import flops
from seqbench.cli import doctor
from seqbench.cli.main import app
from seqbench.kernels.build import available, compiled


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Return a function that runs `seqbench doctor` on empty folders and returns its lines."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    for sizes in (flops.ROWS, flops.COPIED):
        monkeypatch.setitem(sizes, "cpu", 64)
    monkeypatch.setattr(flops, "SECONDS", 0.01)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def lines(*words):
        here = ["--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "outputs")]
        result = CliRunner().invoke(app, ["doctor", *here, *words])
        assert result.exit_code == 0, result.output
        return [" ".join(line.split()) for line in result.output.splitlines()]

    return lines


def test_it_tells_versions_machine_data_and_runs(said, tmp_path):
    write_run(tmp_path / "outputs", make_record())
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.train.txt").write_text("cut off")
    lines = said()
    for start in ("seqbench 0.", "torch 2.", "processor", "memory", "GPU none", "disk"):
        assert any(line.startswith(start) for line in lines), start
    assert "mnist missing: seqbench data fetch mnist" in lines
    assert "ptb incomplete: seqbench data fetch ptb" in lines
    assert f"folder {tmp_path / 'outputs' / 'runs'} (1 run)" in lines
    assert any(line.startswith("no GPU: budget=full takes hours") for line in lines)


def test_a_missing_extra_comes_with_the_command_that_installs_it(said, monkeypatch):
    real = doctor.version

    def version(name):
        if name == "submitit":
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    lines = said()
    assert "slurm submitit missing: pip install 'seqbench[slurm]'" in lines
    assert "hpo installed" in lines


def test_it_says_whether_kernels_compile_and_what_precision_gains(said, monkeypatch, tmp_path):
    lines = said()
    compile_or_not = "compile" if available() else "do not compile: see the warnings below"
    assert f"kernels {compile_or_not}" in lines
    assert any(line.startswith("precision matrix products are ") for line in lines)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/nowhere/c++")
    compiled.cache_clear()
    lines = said()
    compiled.cache_clear()
    assert "kernels do not compile: see the warnings below" in lines
    assert any("/nowhere/c++ did not run" in line for line in lines)


def test_it_says_what_would_be_slow(said, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setattr(os, "getloadavg", lambda: (500.0, 0.0, 0.0))
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(doctor, "file_system", lambda path: "fuse.sshfs")
    found = "\n".join(said())
    for part in ("threads wait for each other", "a load of 500.0", "0.5 cores"):
        assert part in found
    assert "fuse.sshfs" in found


def test_it_says_that_it_compiles(said):
    lines = said()
    assert any(line.startswith("compiling the kernels") for line in lines)
    assert "measuring matrix products" in lines


def test_a_mounted_path_may_contain_spaces(monkeypatch, tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_bytes(b"a / ext4 rw 0 0\nhost:/x /my\\040disk\\134\xc3\xa9 nfs4 rw 0 0\n")
    monkeypatch.setattr(doctor, "Path", lambda name: mounts)
    inside = Path("/my disk\\é/runs")
    assert doctor.file_system(inside) == "nfs4"
    assert doctor.file_system(Path("/my disk")) == "ext4"


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("?", None)]
)
def test_the_limit_of_a_container(monkeypatch, tmp_path, content, cores):
    path = tmp_path / "cpu.max"
    path.write_text(content)
    monkeypatch.setattr(doctor, "Path", lambda name: path)
    assert doctor.cpu_quota() == cores
