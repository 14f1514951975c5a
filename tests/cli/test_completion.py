import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench.cli import completion

PROGRAM = Path(sys.executable).with_name("seqbench")
# As bash has them: a word ends before and after an equals sign.
BASH = """
source <("{program}" --show-completion bash)
COMP_WORDS=({words})
COMP_CWORD={cword}
_seqbench_completion "{program}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def in_bash(*words, cwd=None):
    script = BASH.format(
        program=PROGRAM,
        words=" ".join(f"'{word}'" for word in ["seqbench", *words]),
        cword=len(words),
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("mo", ["model=", "model."]),
        ("model=t", ["model=tcn"]),
        ("model=tcn,l", ["model=tcn,llama", "model=tcn,lstm"]),
        ("model=lstm,l", ["model=lstm,llama"]),
        ("launch=lo", ["launch=local"]),
        ("launch.jobs", ["launch.jobs_per_device="]),
        ("trainer.eval", ["trainer.eval_every="]),
        ("task=char_m", ["task=char_markov"]),
        ("seed=", []),
        ("nosuch=", []),
        ("nosuch.", []),
    ],
)
def test_overrides(incomplete, expected):
    assert completion.overrides(incomplete) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tra"], ["train"]),
        (["train", "model", "=", "l"], ["llama", "lstm"]),
        (["train", "model", "="], ["gru", "llama", "lstm", "rnn", "tcn"]),
        (["sweep", "model", "=", "tcn,l"], ["tcn,llama", "tcn,lstm"]),
        (["train", "model", "=", "tcn", "trainer.eval"], ["trainer.eval_every="]),
    ],
)
def test_bash_which_splits_words_at_the_sign(words, expected):
    assert in_bash(*words) == expected


def test_runs(tmp_path):
    (tmp_path / "outputs/runs/adding/tcn/0123456789ab").mkdir(parents=True)
    assert in_bash("train", "--resume", "01", cwd=tmp_path) == ["0123456789ab"]
    assert in_bash("train", "--resume", "../", cwd=tmp_path) == []
