from dataclasses import replace

import pytest
from record_factory import make_record

from seqbench.configuration import compose
from seqbench.launch.cost import Costs
from seqbench.launch.job import Job
from seqbench.runs.identity import without_place
from seqbench.runs.run import Run


def config(*words):
    return compose(["model=tcn", "task=adding", "recipe=none", "trainer.steps=100", *words])


def record(seconds, *words, **changed):
    found = without_place(config(*words))
    return replace(make_record(**changed), config=found, measured={"seconds": seconds})


def job(tmp_path, *words):
    found = config(*words)
    return Job((), found, Run.of(found), tmp_path)


def test_the_same_run_with_other_seeds_costs_the_same(tmp_path):
    costs = Costs([record(t, f"seed={i}") for i, t in enumerate((10, 30, 11))])
    assert costs.of(job(tmp_path, "seed=9")) == 11


def test_a_longer_training_of_the_same_costs_more(tmp_path):
    costs = Costs([record(10, "seed=0"), record(12, "seed=1", "optimizer.lr=0.5")])
    assert costs.of(job(tmp_path, "trainer.steps=300")) == pytest.approx(33)
    assert costs.of(job(tmp_path, "optimizer.lr=0.5")) == 12


@pytest.mark.parametrize(
    "words",
    [
        ["task.length=99"],
        ["model.kernel_size=3"],
        ["trainer.batch_size=7"],
        ["trainer.steps=null", "trainer.epochs=1"],
    ],
)
def test_what_is_unlike_says_nothing(tmp_path, words):
    assert Costs([record(10)]).of(job(tmp_path, *words)) is None


def test_what_did_not_complete_says_nothing(tmp_path):
    assert Costs([record(10, status="diverged")]).of(job(tmp_path)) is None
