"""Posts that hang hold up no others, and a server that hangs as a whole is not flooded."""

from __future__ import annotations

import asyncio

from jobtester.leaderboard.in_flight_posts import InFlightPosts


async def test_a_post_that_hangs_gives_its_slot_to_the_next() -> None:
    """It goes on by itself, and its end is announced."""
    late_answers: list[bool] = []
    in_flight, answer, done = InFlightPosts(lambda: late_answers.append(True), lambda _: None), asyncio.Event(), []

    async def post(number: int) -> None:
        if number == 0:
            await answer.wait()
        done.append(number)

    await in_flight.run((post(number) for number in range(3)), parallel=1)
    assert (done, in_flight.late_count, late_answers) == ([1, 2], 1, [])
    answer.set()
    await in_flight.finish()
    assert (done, in_flight.late_count, late_answers) == ([1, 2, 0], 0, [True])


async def test_without_any_answer_only_some_posts_step_aside() -> None:
    """After sixteen in a row the others wait: it is the server that is slow."""
    in_flight, answer, began = InFlightPosts(lambda: None, lambda _: None), asyncio.Event(), []

    async def post(number: int) -> None:
        began.append(number)
        if len(began) == 17:
            answer_later.set()
        await answer.wait()

    answer_later = asyncio.Event()
    running = asyncio.create_task(in_flight.run((post(number) for number in range(40)), parallel=1))
    await answer_later.wait()
    assert in_flight.late_count == 16
    answer.set()
    await running
    assert len(began) == 40
    await in_flight.finish()


async def test_silence_is_reported_and_holds_no_slot() -> None:
    """Sixteen posts in a row without an answer: the next waits a little, steps aside too, and others follow."""
    silences: list[float] = []
    in_flight, answer = InFlightPosts(lambda: None, silences.append, silent_s=0.15), asyncio.Event()

    async def post(number: int) -> None:
        if number < 17:
            await answer.wait()

    await in_flight.run((post(number) for number in range(20)), parallel=1)
    assert (len(silences), in_flight.late_count) == (1, 17)
    answer.set()
    await in_flight.finish()


async def test_a_silent_probe_is_reported_and_its_answer_still_counts() -> None:
    """It steps aside although no other post was late, and ends by itself."""
    silences: list[float] = []
    late_answers: list[bool] = []
    in_flight = InFlightPosts(lambda: late_answers.append(True), silences.append, silent_s=0.05)
    answer = asyncio.Event()

    async def post() -> None:
        await answer.wait()

    await in_flight.run(iter([post()]), parallel=8, is_probe=True)
    assert (len(silences), in_flight.late_count, late_answers) == (1, 1, [])
    answer.set()
    await in_flight.finish()
    assert (in_flight.late_count, late_answers) == (0, [True])


async def test_what_has_not_ended_in_time_is_canceled() -> None:
    """At the end of delivery a post without an answer is given up."""
    in_flight, canceled = InFlightPosts(lambda: None, lambda _: None), []

    async def post() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.append(True)
            raise

    await in_flight.run(iter([post()]), parallel=1)
    await in_flight.finish(within_s=0.0)
    assert (canceled, in_flight.late_count) == ([True], 0)
