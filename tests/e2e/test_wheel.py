"""The wheel, installed beside no checkout, has all that the commands need."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

from seqbench.config.choices import choices_of

ROOT = Path(__file__).parents[2]


def run(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from this checkout, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    run(*build, "--outdir", str(folder), str(ROOT))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return the command of a new environment with the wheel and this one's dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    site = next(folder.glob("lib/python*/site-packages"))
    # A path in a .pth file adds no .pth files of its own: the editable install stays out of sight.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "seqbench"


def test_the_wheel_holds_the_package_with_its_configurations_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.*")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("seqbench", "hydra_plugins")
        for path in (ROOT / package).rglob("*.*")
        if path.suffix in (".py", ".cpp", ".h", ".md", ".html", ".css", ".js")
    }
    expected = {f"seqbench/{name}" for name in configs} | sources
    assert any(name.endswith(".trials.csv") for name in expected)
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_installed_wheel_works_from_anywhere(installed, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SEQBENCH_DATA")}

    def seqbench(*words):
        return run(str(installed), *words, cwd=tmp_path, env=environment)

    python = str(installed.with_name("python"))
    where = run(
        python, "-c", "import seqbench; print(seqbench.__file__)", cwd=tmp_path, env=environment
    )
    assert Path(where).is_relative_to(installed.parents[1])

    listed = [line.split()[0] for line in seqbench("list", "models").splitlines()]
    assert listed == choices_of("model")
    assert "adding_tcn" in seqbench("list", "recipes")

    shown = yaml.safe_load(seqbench("config", "show", "model=gru", "task=copy", "budget=smoke"))
    assert shown["model"]["_target_"] == "seqbench.models.rnn.GRU"
    assert shown["trainer"]["steps"] == 20

    seqbench("sweep", "model=tcn", "task=adding", "seed=0,1", "budget=smoke")
    assert len(list(tmp_path.glob("outputs/runs/adding/tcn/*/record.json"))) == 2
