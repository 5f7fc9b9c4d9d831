import pytest

from tests.stage.waiting import StageError, wait_until


def test_returns_what_was_found() -> None:
    looks = iter([0, 0, 7])
    assert wait_until(lambda: next(looks), 5, "a seven") == 7


def test_says_what_never_came() -> None:
    with pytest.raises(StageError, match=r"waited 0 s for rain"):
        wait_until(lambda: False, 0, "rain")


def test_a_function_tells_the_latest_state_in_the_failure() -> None:
    looks: list[int] = []

    def look() -> bool:
        looks.append(1)
        return False

    with pytest.raises(StageError, match=r"rain after [1-9]"):
        wait_until(look, 0, lambda: f"rain after {len(looks)} looks")
