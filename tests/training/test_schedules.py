import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.errors import ConfigError
from seqbench.training.schedules import Constant, Cosine, Plateau, Step

shares = st.floats(0, 1, exclude_max=True)
falls = st.floats(0, 1, exclude_min=True)
totals = st.integers(1, 300)
schedules = st.one_of(
    st.builds(Constant, warmup=shares),
    st.builds(Cosine, warmup=shares, final=st.floats(0, 1)),
    st.builds(Step, warmup=shares, milestones=st.lists(st.floats(0, 1), max_size=4), gamma=falls),
    st.builds(Plateau, warmup=shares, gamma=falls, patience=st.integers(0, 3)),
)


def factors(schedule, total):
    return [schedule.factor(step, total) for step in range(total)]


@given(schedules, totals)
def test_climbs_in_the_warmup_and_never_after_it(schedule, total):
    climb = schedule.warmup * total
    values = factors(schedule, total)
    assert all(0 <= value <= 1 for value in values)
    rising = [value for step, value in enumerate(values) if step < climb]
    falling = values[len(rising) :]
    assert all(a < b for a, b in pairwise([0, *rising]))
    assert all(a >= b for a, b in pairwise(falling))


@given(schedules)
def test_no_warmup_begins_at_the_full_rate(schedule):
    schedule.warmup = 0
    if not (isinstance(schedule, Step) and 0 in schedule.milestones):
        assert schedule.factor(0, 100) == 1


@given(shares, totals)
def test_constant_after_the_warmup(warmup, total):
    after = [v for s, v in enumerate(factors(Constant(warmup), total)) if s >= warmup * total]
    assert set(after) <= {1.0}


def test_a_warmup_of_a_tenth():
    assert factors(Constant(0.1), 40)[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@given(shares, st.floats(0, 1), totals)
def test_cosine_ends_at_its_final_share(warmup, final, total):
    steps = total - math.ceil(warmup * total)
    if steps > 0:
        last = factors(Cosine(warmup, final), total)[-1]
        # The last step begins before the end: by how much the cosine is then still above it.
        left = 1 / (total - warmup * total)
        assert last == pytest.approx(
            final + (1 - final) * (1 - math.cos(math.pi * left)) / 2, abs=1e-9
        )


def test_cosine_is_halfway_in_the_middle():
    values = factors(Cosine(0, 0.2), 100)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.6)


def test_step_falls_at_its_milestones():
    values = factors(Step(0, [0.5, 0.75], 0.1), 8)
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_milestones_count_the_steps_after_the_warmup():
    values = factors(Step(0.5, [0.5], 0.1), 8)
    assert values[4:] == pytest.approx([1, 1, 0.1, 0.1])


def test_plateau_falls_when_more_than_patience_evaluations_were_no_better():
    schedule = Plateau(0, gamma=0.5, patience=1)
    seen = []
    for improved in [True, False, True, False, False, False, False, True, False]:
        schedule.observe(improved)
        seen.append(schedule.factor(0, 1))
    assert seen == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


@given(st.lists(st.booleans()), st.lists(st.booleans()), st.integers(0, 3))
def test_plateau_goes_on_from_what_it_saved(before, after, patience):
    whole, first = (Plateau(0, gamma=0.5, patience=patience) for _ in range(2))
    for improved in before:
        whole.observe(improved)
        first.observe(improved)
    second = Plateau(0, gamma=0.5, patience=patience)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for improved in after:
        whole.observe(improved)
        second.observe(improved)
        assert second.factor(0, 1) == whole.factor(0, 1)


@pytest.mark.parametrize("warmup", [-0.1, 1, 1.5])
def test_the_warmup_is_a_share(warmup):
    with pytest.raises(ConfigError, match=r"schedule\.warmup is a share of all steps"):
        Constant(warmup)
