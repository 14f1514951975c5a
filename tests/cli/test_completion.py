import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench.cli import completion
from seqbench.config.compose import compose
from seqbench.config.schema import with_defaults

PROGRAM = Path(sys.executable).with_name("seqbench")
# As bash has them: a word ends before and after an equals sign.
BASH = """
{completion}
COMP_WORDS=({words})
COMP_CWORD={cword}
_seqbench_completion "{program}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def in_bash():
    """Return a function that gives what bash offers for the last of some words."""
    # A bash that goes on afterwards, since the program looks for the shell that called it.
    command = ["bash", "--norc", "-c", f'"{PROGRAM}" --show-completion bash && true']
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def offered(*words, cwd=None):
        script = BASH.format(
            completion=shown,
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
        )
        return done.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("incomplete", "words", "expected"),
    [
        ("mo", [], ["model=", "model."]),
        ("model=t", [], ["model=tcn", "model=tcn_attention", "model=transformer_xl"]),
        ("model=tcn,l", [], ["model=tcn,llama", "model=tcn,lstm"]),
        ("model=lstm,l", [], ["model=lstm,llama"]),
        ("launch=lo", [], ["launch=local"]),
        ("launch.jobs", [], ["launch.jobs_per_device="]),
        ("launch.jobs", ["launch=slurm"], []),
        ("search.t", [], []),
        ("search.t", ["search=optuna"], ["search.trials="]),
        ("trainer.eval", [], ["trainer.eval_every="]),
        ("task=char_m", [], ["task=char_markov"]),
        ("model.hid", [], []),
        ("model.hid", ["model=lstm"], ["model.hidden_size="]),
        ("model.hid", ["model=lstm,tcn"], []),
        ("optimizer.m", ["optimizer=sgd"], ["optimizer.momentum="]),
        ("seed=", [], []),
        ("nosuch=", [], []),
        ("nosuch.", [], []),
    ],
)
def test_completions(incomplete, words, expected):
    assert completion.completions(incomplete, words) == expected


@pytest.mark.parametrize("words", [[], ["model=llama", "task=char_ptb"], ["schedule=step"]])
def test_every_key_offered_is_one_of_the_config(words):
    config = with_defaults(compose(words))
    for node in completion.NODES:
        keys = [
            word.removeprefix(f"{node}.").rstrip("=")
            for word in completion.completions(f"{node}.", words)
        ]
        assert keys
        assert set(keys) <= config[node].keys()


def test_a_folder_of_the_user_is_completed_and_one_that_is_wrong_completes_nothing(
    in_bash, tmp_path
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").write_text("_target_: my.Model\nwidth: 3\n")
    (tmp_path / "model/wrong.yaml").write_text("off: 3\n")
    words = ["train", "--config-dir", str(tmp_path)]
    assert in_bash(*words, "model", "=", "mi") == ["mine"]
    assert in_bash(*words, "model", "=", "mine", "model.") == ["model.width="]
    assert in_bash(*words, "model", "=", "wrong", "model.") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tra"], ["train"]),
        (["train", "model", "=", "l"], ["llama", "lstm"]),
        (["train", "model", "=", "t"], ["tcn", "tcn_attention", "transformer_xl"]),
        (["sweep", "model", "=", "tcn,l"], ["tcn,llama", "tcn,lstm"]),
        (["train", "model", "=", "lstm", "model.hid"], ["model.hidden_size="]),
        (["train", "laun"], []),
        (["train", "-m", "laun"], ["launch=", "launch."]),
    ],
)
def test_bash_which_splits_words_at_the_sign(in_bash, words, expected):
    assert in_bash(*words) == expected


def test_runs(in_bash, tmp_path):
    (tmp_path / "outputs/runs/adding/tcn/0123456789ab").mkdir(parents=True)
    assert in_bash("train", "--resume", "01", cwd=tmp_path) == ["0123456789ab"]
    assert in_bash("train", "--resume", "../", cwd=tmp_path) == []
