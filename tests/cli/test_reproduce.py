"""Test `seqbench reproduce`."""

import pytest

ONE = ["tcn2018", "--budget", "smoke", "--only", "task=adding,model=tcn", "launch.workers=1"]


@pytest.fixture
def reproduce(seqbench):
    return lambda *words: seqbench("reproduce", *words)


def test_what_is_missing_is_trained_and_nothing_twice(reproduce, tmp_path):
    cut = reproduce(*ONE, "--seeds", "1", "--max-time", "0s")
    assert cut[0] == 130
    assert any("adding tcn" in line and "not measured" in line for line in cut[1])
    assert (
        cut[2][-1]
        == "error: time limit reached: 1 of 1 runs are missing; rerun the same command to resume"
    )
    code, first, err = reproduce(*ONE, "--seeds", "1")
    assert code == 0
    assert any("not comparable¹" in line and "5.8e-5" in line for line in first)
    assert any(line.strip() == "n=1" for line in first)
    assert sum(line.startswith("[1/1] adding tcn") for line in err) == 1
    assert reproduce(*ONE, "--seeds", "1") == (0, first, [])
    # What is kept as reference counts as well.
    (tmp_path / "outputs" / "runs").rename(tmp_path / "outputs" / "reference")
    assert reproduce(*ONE, "--seeds", "1") == (0, first, [])
    assert not (tmp_path / "outputs" / "runs").exists()
    code, out, err = reproduce(*ONE, "--seeds", "2", "--dry-run")
    assert (code, len(out)) == (0, 1)
    assert out[0].startswith("to run      adding tcn  ")
    assert err[0] == "1 kept in a folder 'reference', not listed"


def test_cheap_cells_come_first(reproduce):
    code, out, _ = reproduce("tcn2018", "--only", "model=tcn", "--seeds", "1", "--dry-run")
    assert code == 0
    tasks = [line.split()[2] for line in out]
    cheap, costly = ["jsb", "copy", "nottingham", "adding"], ["char_ptb", "char_text8"]
    assert tasks[:4] + tasks[-2:] == cheap + costly
    assert sorted(tasks[4:-2]) == ["pmnist", "smnist"]


def test_a_dry_run_says_what_its_rows_share_and_which_of_them_is_not_there(reproduce):
    only = "task=etth1, horizon=96|100, model=nlinear"
    code, out, err = reproduce("informer2021", "--only", only, "--seeds", "1", "--dry-run")
    assert (code, out) == (2, [])
    code, out, err = reproduce("ltsf2023", "--only", only, "--seeds", "1", "--dry-run")
    assert (code, len(out)) == (0, 1)
    assert err[0] == "warning: --only: no row has horizon=100"
    assert err[-2] == "all with task.horizon=96 task.target=all budget=full protocol=ours seed=0"


def test_the_code_has_a_tcn_only(reproduce):
    words = ["tcn2018", "--protocol", "code", "--seeds", "1", "--dry-run"]
    code, out, err = reproduce(*words)
    assert code == 0
    tasks = ["jsb", "copy", "nottingham", "adding", "smnist", "pmnist"]
    assert [line.split()[2] for line in out] == tasks
    assert err[0] == "34 cells left out: no released code that can be repeated"
    assert reproduce(*words, "--only", "model=gru")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tcn2019"], "no paper named 'tcn2019' (did you mean 'tcn2018'?)"),
        (["tcn2018", "--budget", "smok"], "no budget named 'smok' (did you mean 'smoke'?)"),
        (["tcn2018", "--protocol", "papr"], "no protocol named 'papr' (did you mean 'paper'?)"),
        (
            ["tcn2018", "optimizer.lr=1"],
            "paper and protocol say what is trained: leave out 'optimizer.lr=1'",
        ),
        (
            ["tcn2018", "recipe=none"],
            "paper and protocol say what is trained: leave out 'recipe=none'",
        ),
        ([*ONE, "threads=1,2"], "reproduce takes one value of each key"),
        ([*ONE, "launch=slrm"], "no launch named 'slrm' (did you mean 'slurm'?)"),
    ],
)
def test_a_mistake_costs_one_line(reproduce, words, message):
    assert reproduce(*words) == (2, [], [f"error: {message}"])
