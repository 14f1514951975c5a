"""The scripts that kill runs and inject faults, with a few runs each."""

import importlib
import os
import random
import re
import sys
from pathlib import Path
from unittest.mock import patch

import fault_storm
import kill_storm
import pytest
from commands import forked

from seqbench.runs.run import Run
from seqbench.training import checkpoint

COLUMNS = ("runs", "kills", "stops", "commands", "resumes", "lost")


def rows(script: str, said: Path, *words: str) -> list[list[str]]:
    """Return the rows of the table that a script prints."""
    process = forked(run_script, script, said, words)
    process.join()
    text = said.read_text()
    assert process.exitcode == 0, text
    return [re.split("  +| (?=[a-z]+_)", line) for line in text.splitlines()[1:-1]]


def run_script(script: str, said: Path, words: tuple[str, ...]) -> None:
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    sys.argv = [script, *words]
    sys.exit(importlib.import_module(script).main())


@pytest.mark.slow
def test_no_run_is_lost_in_a_small_storm_of_kills(tmp_path):
    lines = rows("kill_storm", tmp_path / "said", "--kills", "5")
    *pairs, total = [line[0].split() + line[1:] for line in lines]
    assert {task for _, task, *_ in pairs} == set(kill_storm.TASKS)
    assert len(pairs) == 5
    counts = dict(zip(COLUMNS, map(int, total[-len(COLUMNS) :]), strict=True))
    assert counts["kills"] == 5
    assert counts["lost"] == 0
    assert counts["commands"] > 0
    assert counts["resumes"] > 2


@pytest.mark.slow
def test_no_run_is_lost_in_a_small_storm_of_faults(tmp_path):
    lines = rows("fault_storm", tmp_path / "said", "--times", "1")
    found = {name: rest for name, *rest in lines}
    assert found.keys() == set(fault_storm.FAULTS)
    for fault, rest in found.items():
        skipped = fault_storm.WITHOUT_ROOT and fault in ("full disk", "read-only folder")
        assert skipped or rest == ["1", "0"]


SAYS = {
    "rotten_checkpoint": "got no error",
    "torn_checkpoint": "--force starts the run again",
    "lease_of_another_host": "got no error",
    "sigterm": "differ",
    "nan_in_gradients": "expected status",
}
BROKEN = {
    "rotten_checkpoint": lambda: patch.object(checkpoint, "digest", return_value=""),
    "torn_checkpoint": lambda: patch.object(checkpoint, "keep_previous"),
    "lease_of_another_host": lambda: patch("seqbench.runs.lock.LEASE", -1.0),
    "sigterm": lambda: patch("seqbench.training.state.load_random_state"),
    "nan_in_gradients": lambda: patch("seqbench.training.trainer.check_finite"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_storm_sees_what_is_lost(fault, tmp_path, capsys):
    with BROKEN[fault]():
        strike = getattr(fault_storm, fault)
        assert fault_storm.strike(strike, "lstm", "adding", tmp_path, "x", random.Random(3))
    said = capsys.readouterr().err
    assert f"lost: {fault}: model=lstm task=adding" in said
    assert SAYS[fault] in said.splitlines()[-1]


def test_a_storm_sees_every_difference(undisturbed, copied):
    one, other = Run.of(undisturbed), Run.of(copied(undisturbed))
    assert kill_storm.compare(one, other) is None
    path = other.checkpoints / checkpoint.BEST
    whole = path.read_bytes()
    tensors, facts = checkpoint.load(path)
    next(iter(tensors.values())).view(-1)[0] += 1e-7
    checkpoint.save(path, tensors, facts)
    assert kill_storm.compare(one, other).startswith("best.safetensors differs in model.")
    path.write_bytes(whole)
    text = other.record_path.read_text()
    other.record_path.write_text(text.replace('"steps": 20,', '"steps": 21,'))
    assert kill_storm.compare(one, other) == "the records differ in steps"
    other.record_path.write_text(text)
    (other.checkpoints / ".last.safetensors.draft").write_bytes(b"")
    assert kill_storm.compare(one, other) == "left behind: .last.safetensors.draft"
    other.events_path.write_bytes(other.events_path.read_bytes()[:-1])
    assert kill_storm.compare(one, other) == "events differ"
