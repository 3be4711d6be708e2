"""The next batches are asked for before a step is done, what fails fails in its step, and the thread ends with the block."""

from __future__ import annotations

import threading

import pytest

from components.data.prefetch import NUM_AHEAD, Prefetch

# Longer than anything here takes, so that a test that waits in vain fails.
LIMIT_S = 60.0


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("prefetch")}


def test_the_next_batches_are_made_while_a_step_is_taken() -> None:
    begun = {step: threading.Event() for step in range(1, 10)}
    made_in: dict[int, str] = {}

    def make(step: int) -> int:
        made_in[step] = threading.current_thread().name
        begun[step].set()
        return 10 * step

    with Prefetch(make, last_step=9) as batches:
        for step in range(1, 10):
            assert batches.of(step) == 10 * step
            # Here the step would be taken: that of the next ones is asked for by now, and nobody asks for more.
            for ahead in range(step + 1, min(step + NUM_AHEAD, 9) + 1):
                assert begun[ahead].wait(LIMIT_S), f"the batch of step {ahead} is not made in step {step}"
            assert not any(begun[later].is_set() for later in range(step + NUM_AHEAD + 1, 10))
        assert sorted(made_in) == list(range(1, 10)), "each once, and none behind the last step"
        assert all(name.startswith("prefetch") for name in made_in.values())
    assert not threads()


def test_what_fails_fails_in_the_step_that_needs_it() -> None:
    asked: list[int] = []

    def make(step: int) -> int:
        asked.append(step)
        if step == 3:
            raise ValueError("no such row")
        return step

    with Prefetch(make, last_step=9) as batches:
        assert batches.of(1) == 1
        assert batches.of(2) == 2
        with pytest.raises(ValueError, match="no such row"):
            batches.of(3)
        assert 3 in asked
    assert not threads()


def test_an_interrupt_ends_the_thread_and_what_has_not_begun_is_not_made() -> None:
    asked, go_on = list[int](), threading.Event()

    def make(step: int) -> int:
        asked.append(step)
        if step > 1:
            assert go_on.wait(LIMIT_S)
        return step

    def interrupted() -> None:
        with Prefetch(make, last_step=9) as batches:
            batches.of(1)
            threading.Timer(0.0, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not threads()
    assert asked[-1] <= 1 + NUM_AHEAD


def test_a_training_that_goes_back_gets_what_it_got_before() -> None:
    with Prefetch(lambda step: 10 * step, last_step=9) as batches:
        assert [batches.of(step) for step in (4, 5, 2, 3, 4, 5, 9)] == [40, 50, 20, 30, 40, 50, 90]


def test_without_a_block_there_is_no_thread() -> None:
    batches = Prefetch(lambda step: threading.current_thread(), last_step=9)
    assert batches.of(3) is threading.current_thread()
