from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_record

from seqbench.config.compose import compose
from seqbench.launch.cost import Costs, wall_clock
from seqbench.launch.job import Job
from seqbench.runs.identity import without_environment
from seqbench.runs.run import Run


def config(*words):
    return compose(["model=tcn", "task=adding", "recipe=none", "trainer.steps=100", *words])


def record(seconds, *words, **changed):
    found = without_environment(config(*words))
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


def test_jobs_begin_in_their_order_wherever_there_is_room():
    assert wall_clock([3, 1, 1, 1], places=2) == 3
    assert wall_clock([1, 1, 1, 3], places=2) == 4
    assert wall_clock([], places=2) == 0


@given(st.lists(st.floats(0, 1e6)), st.integers(1, 50))
def test_no_schedule_is_longer_than_its_work_or_shorter_than_its_longest_job(costs, places):
    took = wall_clock(costs, places)
    longest, work = max(costs, default=0.0), sum(costs)
    assert max(longest, work / places) <= took * (1 + 1e-9) + 1e-9
    assert took <= (work / places + longest) * (1 + 1e-9) + 1e-9
