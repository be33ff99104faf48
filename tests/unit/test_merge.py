"""Merging is order-free: commutative, associative, idempotent by way of lifecycle_events."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.events import decoded
from support.lives import lives
from support.workflow_lives import workflow_lives

from worker.families import plan
from worker.message import Message
from worker.store.bulk import is_json
from worker.store.merge import (
    Folded,
    clock,
    clock_attempt,
    clock_time,
    fold_batch,
    merge,
    moment,
    visible,
)
from worker.store.merge_sql import upsert_columns

ENTITIES = plan().entity_order


def fold(entity, messages: list[Message]) -> dict[Any, Folded]:
    json_columns = frozenset(c.name for c in entity.table.columns if is_json(c))
    own = [message for message in messages if message.type in entity.folds]
    return fold_batch(entity, own, json_columns)


def shown(entity, rows: dict[Any, Folded]) -> dict[Any, dict[str, Any]]:
    """What each row would show."""
    names = [name for name in upsert_columns(entity) if name not in ("tenant_id", entity.key)]
    return {
        key: {
            name: getattr(row, name) if hasattr(row, name) else visible(entity, row, name)
            for name in names
        }
        for key, row in rows.items()
    }


@given(lives() | workflow_lives(), st.randoms(use_true_random=False))
def test_any_order_folds_into_the_same_rows(events, random_: random.Random):
    """A permutation of an entity's messages changes nothing that a row shows."""
    messages = decoded(*events)
    shuffled = random_.sample(messages, len(messages))
    for entity in ENTITIES:
        assert shown(entity, fold(entity, messages)) == shown(entity, fold(entity, shuffled))


@given(lives() | workflow_lives(), st.randoms(use_true_random=False))
def test_any_grouping_folds_into_the_same_rows(events, random_: random.Random):
    """Folding parts and merging them is folding the whole: batches may be cut anywhere."""
    messages = random_.sample(decoded(*events), len(events))
    cut = random_.randint(0, len(messages))
    for entity in ENTITIES:
        whole = fold(entity, messages)
        left, right = fold(entity, messages[:cut]), fold(entity, messages[cut:])
        for key, row in right.items():
            left[key] = merge(entity, left[key], row) if key in left else row
        assert shown(entity, left) == shown(entity, whole)


@given(
    st.integers(1, 9_999_999_999),
    st.integers(0, 99),
    st.datetimes(timezones=st.just(None)),
    st.uuids(),
)
def test_a_clock_says_what_it_was_made_of(attempt, rank, time, identity):
    """Attempt and time can be read back from a clock's text."""
    from datetime import UTC

    text = clock(attempt, rank, moment(time.replace(tzinfo=UTC), identity))
    assert len(text) == 70
    assert clock_attempt(text) == attempt
    assert clock_time(text) == time.replace(tzinfo=UTC)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9_999_999_999),
            st.integers(0, 99),
            st.datetimes(),
            st.uuids(),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_clocks_compare_as_attempt_rank_time_and_id_do(pair):
    """The order of the texts is the order of the parts."""
    from datetime import UTC

    one, other = ((a, r, t.replace(tzinfo=UTC), i) for a, r, t, i in pair)
    texts = [clock(a, r, moment(t, i)) for a, r, t, i in (one, other)]
    assert (texts[0] < texts[1]) == (one < other)
