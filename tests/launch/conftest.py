"""Provide runs that are still going on when a test does something to them."""

from pathlib import Path

import pytest
from small_sweep import write_misbehaving


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words for runs in the current folder that take a minute without a file `hurry`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    long = ["trainer.steps=600", "trainer.eval_every=300", "trainer.checkpoint_every=10"]
    return [*write_misbehaving(tmp_path), *long, "model.deed=wait", "output_dir=out"]
