"""A kit takes a sweep to a machine without a network, piece by piece, and nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from record_factory import make_record, write_run, write_unfinished

from seqbench.runs.config_file import read_config

PACK = Path(__file__).parents[2] / "scripts" / "pack_kit.py"
# `scripts` is no package.
sys.path.insert(0, str(PACK.parent))
import pack_kit  # noqa: E402

SWEEP = [
    *("sweep", "model=tcn", "task=copy", "budget=smoke", "trainer.steps=300"),
    *("trainer.eval_every=50", "trainer.checkpoint_every=20", "launch.workers=2"),
]


def closure(*names: str, leave_out: Sequence[str] = ()) -> list[Distribution]:
    """Installed packages and what they need on this machine, extras left out."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in leave_out:
            found[name] = distribution(name)
            needs = map(Requirement, found[name].requires or [])
            here = [n for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
            waiting += [need.name for need in here]
    return list(found.values())


def as_wheel(package: Distribution, folder: Path) -> None:
    """Make a wheel of what is installed: a stand-in for the index, which tests do not ask."""
    name = package.metadata["Name"].replace("-", "_").replace(".", "_")
    *_, tag = (line[5:] for line in package.read_text("WHEEL").splitlines() if line[:4] == "Tag:")
    with zipfile.ZipFile(folder / f"{name}-{package.version}-{tag}.whl", "w") as wheel:
        for file in package.files:
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                wheel.write(package.locate_file(file), file.as_posix())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The environment of the machine that packs: without a network, it has an index of its own."""
    index = tmp_path_factory.mktemp("index")
    for package in closure("seqbench", "hatchling", leave_out=["torch"]):
        if package.metadata["Name"] != "seqbench":
            as_wheel(package, index)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "SEQBENCH_"))}
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "OMP_NUM_THREADS": "1"}
    return clean | offline | {"PIP_FIND_LINKS": str(index)}


@pytest.fixture(scope="module")
def there(home, tmp_path_factory):
    """The environment of the other machine: its Python has pip and torch, and no package else."""
    folder = tmp_path_factory.mktemp("there")
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    borrowed = Path(sysconfig.get_path("purelib"))
    for name in {file.parts[0] for p in closure("torch", "pip") for file in p.files}:
        if name != ".." and (borrowed / name).exists():
            (site / name).symlink_to(borrowed / name)
    python = folder / "bin" / "python"
    lacks = subprocess.run([python, "-c", "import hydra"], capture_output=True, text=True)
    assert "No module named 'hydra'" in lacks.stderr
    return {k: v for k, v in home.items() if k != "PIP_FIND_LINKS"} | {"PYTHON": str(python)}


def run(words, folder, environment):
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, 130), done.stdout + done.stderr
    return done


def borrow(folder, home, there, *words):
    """One loan of the other machine: pack, run there, and bring back; gives the exit code."""
    kit, loan = folder / "kit", folder / "loan"
    run([sys.executable, PACK, kit], folder, home)
    done = run([kit / "run.sh", loan, *words], folder, there)
    (folder / "outputs").mkdir(exist_ok=True)
    run(["cp", "-a", loan / "outputs" / "runs", "outputs/"], folder, home)
    shutil.rmtree(kit)
    shutil.rmtree(loan)
    return done.returncode


def seeds(folders):
    """The seeds of some runs, as a sweep takes them."""
    found = [read_config(folder / "config.yaml")["seed"] for folder in folders]
    return f"seed={','.join(map(str, found))}"


def result(folder):
    """Record and events of a run, without what is measured of the machine."""
    record = json.loads((folder / "record.json").read_text())
    del record["measured"]
    return record, (folder / "events.jsonl").read_bytes()


def history(folder):
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def test_a_sweep_done_in_pieces_ends_as_if_undisturbed(tmp_path, home, there):
    first, cut = [*SWEEP, "seed=range(200)", "--max-time", "15s"], set()
    while not cut:  # a machine that is busy may not come to its first checkpoint
        # More runs than any machine does in that time.
        assert borrow(tmp_path, home, there, *first) == 130
        runs = set(tmp_path.glob("outputs/runs/copy/tcn/*"))
        over = {folder: history(folder) for folder in runs if (folder / "record.json").exists()}
        saved = {path.parents[1] for path in tmp_path.glob("outputs/**/last.safetensors")}
        cut = saved - over.keys()

    assert borrow(tmp_path, home, there, *SWEEP, seeds(runs)) == 0
    assert all(history(folder)[-2:] == ["resumed", "completed"] for folder in cut)
    assert {folder: history(folder) for folder in over} == over

    calm = tmp_path / "calm"
    calm.mkdir()
    run([sys.executable, "-m", "seqbench", *SWEEP, seeds(cut)], calm, home)
    undisturbed = calm.glob("outputs/runs/copy/tcn/*")
    assert {f.name: result(f) for f in cut} == {f.name: result(f) for f in undisturbed}


def test_a_kit_holds_the_datasets_that_are_whole_here(tmp_path, real_data, monkeypatch, capsys):
    here = tmp_path / "here"
    shutil.copytree(real_data / "tinyshakespeare", here / "tinyshakespeare")
    shutil.copytree(real_data / "ptb", here / "ptb")
    (here / "ptb" / "ptb.valid.txt").write_text("torn")
    monkeypatch.setenv("SEQBENCH_DATA", str(here))
    (tmp_path / "kit").mkdir()
    pack_kit.pack_data(tmp_path / "kit", None)
    assert capsys.readouterr().out == "data: shakespeare\n"
    kept = {path for path in (tmp_path / "kit").rglob("*") if path.is_file()}
    assert kept == {tmp_path / "kit" / "tinyshakespeare" / "input.txt"}


def test_a_kit_holds_unfinished_runs_and_the_records_of_the_others(tmp_path, capsys):
    outputs, kit = tmp_path / "outputs", tmp_path / "kit"
    write_run(outputs, make_record())
    write_run(outputs, make_record(seed=1), "reference/tcn2018")
    unfinished = write_unfinished(outputs, make_record(task="copy"), events="")
    (unfinished / "checkpoints").mkdir()
    for name in ("checkpoints/last.safetensors", ".lease", ".lock"):
        (unfinished / name).write_text("{}")
    pack_kit.pack_runs(kit, outputs, "*/*")
    assert capsys.readouterr().out == "runs: 1 unfinished, 2 over\n"
    kept = [path.relative_to(kit) for path in kit.rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == [
        *("config.yaml", "events.jsonl", "last.safetensors", "record.json", "record.json")
    ]
    assert all((outputs / path).is_file() for path in kept)
    pack_kit.pack_runs(tmp_path / "part", outputs, "adding/*")
    assert capsys.readouterr().out == "runs: 0 unfinished, 2 over\n"


def test_what_is_there_already_is_not_touched(tmp_path):
    (tmp_path / "outputs").mkdir()
    done = subprocess.run([sys.executable, PACK, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is there already: remove it, or name another folder\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "outputs"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (None, []),
        ("win_amd64", ["win_amd64"]),
        (
            "manylinux_2_18_aarch64",
            ["manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"],
        ),
    ],
)
def test_a_platform_takes_wheels_for_older_ones(asked, told):
    assert pack_kit.platforms(asked) == told
