import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.results.statistics import describe, distinguishable, t_coverage, t_quantile

# Two-sided 95% points as printed in tables of Student's t.
PRINTED = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    9: 2.262,
    10: 2.228,
    19: 2.093,
    29: 2.045,
    30: 2.042,
    60: 2.000,
    120: 1.980,
}


@pytest.mark.parametrize(("df", "printed"), PRINTED.items())
def test_t_quantiles_are_those_of_printed_tables(df, printed):
    assert t_quantile(df) == pytest.approx(printed, abs=5.1e-4)


def test_another_coverage():
    assert t_quantile(4, coverage=0.99) == pytest.approx(4.604, abs=5e-4)
    assert t_quantile(9, coverage=0.90) == pytest.approx(1.833, abs=5e-4)


def test_one_degree_of_freedom_is_cauchy():
    assert t_coverage(math.atan(2.0), df=1) == pytest.approx(2 / math.pi * math.atan(2.0))


@given(st.integers(1, 300), st.floats(0.05, 0.995))
def test_the_quantile_undoes_the_coverage(df, coverage):
    theta = math.atan(t_quantile(df, coverage) / math.sqrt(df))
    assert t_coverage(theta, df) == pytest.approx(coverage, abs=1e-9)


def test_a_known_sample():
    sample = describe([4.0, 5.0, 6.0, 9.0])
    assert sample.n == 4
    assert sample.mean == 6.0
    assert sample.sd == pytest.approx(2.160247, abs=1e-6)
    assert sample.high is not None
    assert sample.high - sample.mean == pytest.approx(3.182446 * 2.160247 / 2, abs=1e-5)
    assert (sample.median, sample.min, sample.max) == (5.5, 4.0, 9.0)


def test_one_value_has_no_spread():
    sample = describe([0.5])
    assert (sample.n, sample.mean, sample.sd, sample.low) == (1, 0.5, None, None)


def test_logarithms_are_averaged_where_errors_span_decades():
    sample = describe([1e-5, 1e-4, 1e-3], log=True)
    assert sample.mean == pytest.approx(1e-4)
    assert sample.sd == pytest.approx(math.log(10))
    assert sample.low is not None
    assert sample.high is not None
    assert sample.low * sample.high == pytest.approx(1e-8)
    assert sample.high / sample.mean == pytest.approx(10 ** (4.302653 / math.sqrt(3)), rel=1e-5)
    tenfold = {seed: 10.0**-seed for seed in range(4)}
    noisy = {seed: 10.0**-seed * (1.2 + seed / 100) for seed in range(4)}
    assert distinguishable(tenfold, noisy) is False
    assert distinguishable(tenfold, noisy, log=True) is True


def test_means_are_compared_over_the_seeds_that_both_have():
    """Detect a difference that is small beside the spread over seeds but equal for each seed."""
    first = {seed: float(seed) for seed in range(5)}
    second = {9: 70.0} | {seed: seed + 0.1 + seed % 2 / 100 for seed in (4, 2, 0, 3, 1)}
    assert distinguishable(first, second) is True
    assert distinguishable(first, {seed: 4.0 - seed for seed in first}) is False
    assert distinguishable(first, {4: 0.0, 3: 0.0, 9: 0.0}) is None


@given(st.lists(st.integers(-8000, 8000).map(lambda i: i / 8), min_size=2, max_size=8))
def test_a_sample_lies_between_its_ends_and_equal_values_have_no_spread(values):
    sample = describe(values)
    assert sample.min <= sample.mean <= sample.max
    assert sample.min <= sample.median <= sample.max
    assert (sample.sd == 0) == (len(set(values)) == 1)
