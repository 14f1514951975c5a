import pytest
from record_factory import make_record, write_unfinished

from seqbench.errors import ConfigError
from seqbench.results.collect import read_unfinished
from seqbench.results.where import select

RUNS = [
    make_record(seed=0, value=0.5),
    make_record(seed=1, value=None),
    make_record(seed=2, budget="quick", model__kernel_size=7),
    make_record("copy", "lstm", seed=3, status="failed", parameters=None),
]


@pytest.mark.parametrize(
    ("where", "seeds"),
    [
        (None, [0, 1, 2, 3]),
        ("", [0, 1, 2, 3]),
        ("seed<2", [0, 1]),
        ("seed <= 2", [0, 1, 2]),
        ("seed>1", [2, 3]),
        ("seed>=1,seed!=2", [1, 3]),
        ("seed=0", [0]),
        ("seed==0", [0]),
        ("model=lstm", [3]),
        ("task=adding, budget = full", [0, 1]),
        ("model.kernel_size=7", [2]),
        ("trainer.watch=valid, seed<1", [0]),
        ("model.kernel_size<9", [0, 1, 2]),
        ("model.channels=[24,24,24,24,24,24,24,24]", [0, 1, 2]),
        ("model.channels=[24,24,24,24,24,24,24,24], seed>0", [1, 2]),
        ("status=failed", [3]),
        ("status!=failed", [0, 1, 2]),
        ("score<1", [0, 2]),
        ("score=null", [1, 3]),
        ("parameters=null", [3]),
        ("parameters>1000", [0, 1, 2]),
        ("metrics.test.mse<1e-3", [2]),
        ("measured.device=cpu (x86_64)", [0, 1, 2, 3]),
        ("notes.solved=1", [2]),
        ("trainer.steps=null", [0, 1, 2, 3]),
        ("budget<3", []),
        ("seed=0 | 1", [0, 1]),
        ("seed!=0|1", [2, 3]),
        ("model=tcn|lstm", [0, 1, 2, 3]),
        # A key that some runs have is known after any other term.
        ("model=lstm, model.kernel_size=7", []),
    ],
)
def test_filters(where, seeds):
    assert [run.seed for run in select(RUNS, where)] == seeds


COMMAS = "parts its terms by commas"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        *((where, "--where") for where in ("seed", "<3", "seed<", "seed<3,", "a b=1")),
        ("seed<3 and model=tcn", COMMAS),
        ("seed=0 seed=1", COMMAS),
        ("model=tcn or seed=1", COMMAS),
        ("model.kernel_siz=7", r"did you mean 'model\.kernel_size'"),
        ("seed<many", "not a number"),
    ],
)
def test_what_is_no_filter_is_refused(where, message):
    with pytest.raises(ConfigError, match=message):
        select(RUNS, where)


def test_no_runs_match_anything():
    assert select([], "whatever=1") == []


def test_unfinished_runs_are_filtered_by_their_configuration(tmp_path):
    runs = [
        read_unfinished(write_unfinished(tmp_path, make_record(seed=seed), '{"step": 5}\n'))
        for seed in range(3)
    ]
    assert [run.config["seed"] for run in select(runs, "seed<2, steps=5, task=adding")] == [0, 1]
