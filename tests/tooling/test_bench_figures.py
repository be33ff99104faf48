"""The statistics of the benchmarks."""

import pytest

from benchmarks.figures import drift, middle, percentile, ratio
from benchmarks.growth import Look, Point
from benchmarks.latency import Latency
from benchmarks.measure import Measurement
from benchmarks.rounds import Results
from benchmarks.targets import TARGETS, Target, judge


def test_a_ratio_is_taken_within_rounds_and_its_median_reported():
    """A machine that is twice as slow in one round changes both sides, and so not the ratio."""
    rounds = [{"a": 80, "b": 100}, {"a": 40, "b": 50}, {"a": 99, "b": 100}]
    found = ratio(rounds, "a", "b")
    assert found is not None
    assert (found.median, found.lowest, found.highest, found.rounds) == (0.8, 0.8, 0.99, 3)


def test_a_round_that_lacks_one_side_is_left_out():
    """A run that failed its checks has no figure, and must not be paired with another round's."""
    rounds = [{"a": 80}, {"b": 100}, {"a": 60, "b": 100}]
    found = ratio(rounds, "a", "b")
    assert found is not None
    assert (found.median, found.rounds) == (0.6, 1)
    assert ratio([{"a": 1}], "a", "b") is None
    assert ratio([{"a": 1, "b": 0}], "a", "b") is None


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (0.999, 100), (1.0, 100)]
)
def test_a_percentile_is_the_nearest_rank(share, wanted):
    """The smallest value that this share of all do not exceed: never one that nobody saw."""
    assert percentile(range(100, 0, -1), share) == wanted


def test_a_percentile_of_nothing_is_an_error():
    """No figure is made up."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_medians_and_drift():
    """The median of one contender over the rounds that have it; drift is best over worst."""
    assert middle([{"a": 3}, {"a": 1}, {"a": 2}, {"b": 9}], "a") == 2
    assert middle([{"a": 3}], "b") is None
    assert drift([2.0, 1.0, 1.5]) == 2.0
    assert drift([]) == 1.0


def test_verdicts_say_met_not_met_and_not_measured():
    """A target with `at_most` wants little; one without a round is neither met nor missed."""
    rounds = [{"ours": 9.0, "reference": 10.0, "ours-2": 8.0, "reference-2": 10.0}]
    verdicts = {(v.target.text, v.load): v.met for v in judge(lambda _load, _figure: rounds)}
    assert verdicts["single events, 1 process, against the C reference", "logs"] is True
    assert verdicts["2 processes against the C reference with 2", "mix"] is False
    assert verdicts["batch mode against bare COPY", "logs"] is None
    cpu = Target("cpu", "ours", "reference", ("logs",), 0.8, at_most=True)
    assert cpu not in TARGETS
    met = [v.met for v in judge(lambda _load, _figure: rounds) if v.target.at_most]
    assert met == [
        True,
        None,
        None,
        True,
    ]  # CPU, latency twice, disk: a figure with a bound of its own


def _look(contender: str, p50: float, *, of_capacity: bool = False) -> Latency:
    return Latency(contender, 100, of_capacity, 400, p50, 2 * p50, 3 * p50, 100)


def test_looks_at_latency_are_compared_within_their_round():
    """The ratio is taken between looks that stand side by side; one at a share of capacity is compared with none."""
    peer = "faststream-asyncpg"
    results = Results(
        looks=[
            *((at, _look("ours", p50)) for at, p50 in enumerate((0.004, 0.020, 0.006))),
            *((at, _look(peer, p50)) for at, p50 in enumerate((0.005, 0.025, 0.005))),
            (0, _look("ours", 9, of_capacity=True)),
        ]
    )
    verdicts = {v.target.figure: v for v in judge(results.rounds_of)}
    found = verdicts["p50"].found
    assert found is not None
    assert (round(found.median, 6), round(found.highest, 6), found.rounds) == (0.8, 1.2, 3)
    assert verdicts["p99"].met is True
    assert verdicts["disk_mb"].met is None


def _measured(rate: float, *problems: str) -> Measurement:
    return Measurement("ours", "logs", 100, 600, 100 / rate, {}, 1.0, 1.0, 0.0, list(problems))


def test_a_point_of_growth_is_the_median_of_its_looks_and_says_whether_it_is_enough():
    """Each look against its own base; one that was not as it should be has no part, and where none was there is no verdict."""
    good = [Look(_measured(9), _measured(10)), Look(_measured(4), _measured(5))]
    bad = Look(_measured(1, "2 rows are missing"), _measured(10))
    point = Point("rows", "5,000,000", [*good, bad])
    assert point.ratio is not None
    assert round(point.ratio.median, 6) == 0.85
    assert point.met == "≥ 0.9: no"
    assert Point("rows", "5,000,000", good[:1]).met == "≥ 0.9: yes"
    assert Point("rows", "0", good).met == ""
    assert Point("backlog", "1,000,000", [bad]).met == ""
