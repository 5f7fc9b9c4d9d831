"""However a map is edited: a quick reload comes to what reading everything comes to."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.editing import edited, part_written, written
from tests.unit.policy.reloading import check_reloads


@given(st.data())
@settings(deadline=None, max_examples=400)
def test_a_map_edited_again_and_again(data: st.DataObject) -> None:
    def pick(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    first = written(pick)
    once, again = edited(first, pick), edited(first, pick)
    states = [first, once, again, edited(again, pick)]
    check_reloads(*((state.encode(),) for state in states))


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=400)
def test_with_a_part(random: Random) -> None:
    pick = random.randrange
    main, part = written(pick), part_written(pick)
    states = [(main, part), (main, edited(part, pick)), (edited(main, pick), part)]
    check_reloads(*((first.encode(), second.encode()) for first, second in [*states, states[0]]))
