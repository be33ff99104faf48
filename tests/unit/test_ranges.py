"""Numbers as ranges, against plain sets."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worker.store.ranges import Range, fold, literal

numbers = st.lists(st.integers(1, 40) | st.integers(10**18 - 5, 10**18 - 1), max_size=60)


def unfold(ranges):
    return [number for one in ranges for number in range(one.first, one.last + 1)]


@given(numbers)
def test_ranges_hold_each_number_once_and_those_that_came_twice(given_numbers):
    """Nothing is added, nothing left out, whatever the order and however often."""
    once, again = fold(given_numbers)
    counted = Counter(given_numbers)
    assert unfold(once) == sorted(counted)
    assert unfold(again) == sorted(number for number, times in counted.items() if times > 1)


@given(numbers)
def test_ranges_are_apart_and_in_order(given_numbers):
    """So that there is one way to write them, and as few as can be."""
    for ranges in fold(given_numbers):
        assert all(one.first <= one.last for one in ranges)
        assert all(one.last + 1 < other.first for one, other in pairwise(ranges))


def test_ranges_as_text():
    """As PostgreSQL reads them, and as people do."""
    once, _ = fold([7, 1, 2, 3])
    assert literal(once) == "{[1,3],[7,7]}"
    assert literal([]) == "{}"
    assert [str(one) for one in once] == ["1-3", "7"]
    assert fold([])[0] == []
    assert Range(1, 1) == (1, 1)
