"""Modules of the current folder do not replace those of Python and of dependencies."""

import os
import subprocess
import sys

import pytest

NAMES = ("gzip", "queue", "random", "json", "multiprocessing", "numpy", "torch", "yaml", "hydra")
MODEL = """
import torch
import layers

class Mean(torch.nn.Module):
    def __init__(self, spec, width: int = 4):
        super().__init__()
        self.layer = layers.Layer(spec.input.dim, spec.target.dim)

    def forward(self, x):
        return self.layer(x).mean(1)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 looks there first")
def test_a_sweep_ignores_modules_of_the_current_folder_with_known_names(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the current folder')")
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "layers.py").write_text("from torch.nn import Linear as Layer\n")
    (tmp_path / "choices" / "model").mkdir(parents=True)
    (tmp_path / "choices" / "model" / "mean.yaml").write_text(
        "_target_: mine.Mean\n_partial_: true\n"
    )
    words = ["--config-dir", "choices", "model=mean", "task=adding", "seed=1,2", "budget=smoke"]
    done = subprocess.run(
        [sys.executable, "-m", "seqbench", "sweep", *words, "launch.workers=1"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/runs/adding/mean/*/record.json"))) == 2
