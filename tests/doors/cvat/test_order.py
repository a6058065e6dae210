"""The order of points that come in two lists: the longest beginning of what was answered, then positives, negatives."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mmms_deploy.doors.cvat.order import MOST, Orders, common_beginning, in_order, split
from mmms_deploy.session import Click

# Few places, so that the same point comes several times.
CLICKS = st.lists(st.builds(Click, st.sampled_from([0.0, 1.0, 2.0]), st.just(0.0), st.booleans()), max_size=8)
P1, P2, P3 = (Click(float(x), 0.0) for x in (1, 2, 3))
N1, N2 = (Click(float(x), 5.0, False) for x in (1, 2))


def ask(orders: Orders, clicks: list[Click] | tuple[Click, ...]) -> tuple[Click, ...]:
    """A request whose points were clicked in this order, answered."""
    found = orders.ordered(*split(clicks))
    orders.answered(found)
    return found


@given(CLICKS)
@settings(deadline=None)
def test_one_more_click_at_every_request_keeps_the_true_order(clicks: list[Click]) -> None:
    orders = Orders()
    for count in range(1, len(clicks) + 1):
        assert ask(orders, clicks[:count]) == tuple(clicks[:count])


@given(CLICKS, st.lists(st.one_of(st.none(), st.builds(Click, st.just(7.0), st.just(0.0), st.booleans())), max_size=12))
@settings(deadline=None)
def test_undoing_the_newest_click_and_going_on_keeps_the_true_order(clicks: list[Click], steps: list) -> None:
    orders = Orders()
    for count in range(1, len(clicks) + 1):
        ask(orders, clicks[:count])
    now = list(clicks)
    for place, step in enumerate(steps):
        if step is None:
            now = now[:-1]
        else:
            now.append(Click(step.x + place, step.y, step.positive))
        if now:
            assert ask(orders, now) == tuple(now)


@given(CLICKS, CLICKS)
@settings(deadline=None)
def test_the_points_are_those_of_the_request_and_begin_with_the_longest_beginning(
    held: list[Click], wanted: list[Click]
) -> None:
    positives, negatives = split(wanted)
    found = in_order(positives, negatives, held)
    assert split(found) == (positives, negatives)

    def fits(count: int) -> bool:
        first, second = split(held[:count])
        return positives[: len(first)] == first and negatives[: len(second)] == second

    longest = max(count for count in range(len(held) + 1) if fits(count))
    assert common_beginning(positives, negatives, held) == longest
    assert found[:longest] == tuple(held[:longest])
    rest_positive, rest_negative = split(found[longest:])
    assert found[longest:] == (*rest_positive, *rest_negative)


def test_points_that_come_together_are_positive_ones_first() -> None:
    assert in_order([P1, P2], [N1], []) == (P1, P2, N1)
    assert in_order([P1, P2], [N1, N2], [P1, N1]) == (P1, N1, P2, N2)


def test_a_point_removed_between_others_takes_the_order_of_those_after_it_with_it() -> None:
    orders = Orders()
    for count in range(1, 6):
        ask(orders, [P1, N1, P2, N2, P3][:count])
    assert orders.ordered([P1, P3], [N1, N2]) == (P1, N1, P3, N2)
    assert orders.ordered([P1, P2, P3], [N2]) == (P1, P2, P3, N2), "without N1 only P1 is a beginning"


def test_the_next_object_begins_anew_and_the_one_before_it_stays() -> None:
    orders = Orders()
    ask(orders, [P1])
    ask(orders, [P1, N1])
    assert ask(orders, [P3]) == (P3,)
    assert orders.held == [(P1, N1), (P3,)]


def test_two_annotators_on_one_frame_keep_their_orders() -> None:
    orders = Orders()
    first, second = [P1, N1, P2, N2], [P3, N2, P1, N1]
    for count in range(1, 5):
        assert ask(orders, first[:count]) == tuple(first[:count])
        assert ask(orders, second[:count]) == tuple(second[:count])


def test_few_lists_are_kept_and_the_oldest_one_goes_first() -> None:
    orders = Orders()
    for x in range(2 * MOST):
        ask(orders, [Click(float(x), 0.0)])
    assert orders.held == [(Click(float(x), 0.0),) for x in range(MOST, 2 * MOST)]


def test_no_points_are_no_list() -> None:
    orders = Orders()
    assert ask(orders, []) == ()
    assert orders.held == []
