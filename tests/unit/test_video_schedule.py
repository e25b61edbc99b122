"""The schedule of frames: no bursts, and an honest account of what was late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.video.frame_schedule import FrameSchedule
from jobtester.video.pattern import VideoFormat

FORM = VideoFormat(64, 64, 10)


def test_a_sender_that_keeps_time_is_never_late() -> None:
    """Frame n is due n/fps after the start."""
    schedule = FrameSchedule(FORM, 100.0, 1000)
    for number in range(30):
        due = 100 + number / 10
        assert schedule.next_frame(due - 0.04) == pytest.approx((number, 0.04))
        assert schedule.next_frame(due + 0.001) == (number, 0.0)
        schedule.count_encoded(number, due + 0.02)
        schedule.count_sent(number, due + 0.02)
    sent = schedule.report()
    assert (len(sent.times), sent.late, sent.skipped, sent.span_s) == (30, 0, 0, 3.0)


def test_a_frame_that_takes_too_long_is_late() -> None:
    """A frame that is finished more than one frame after its time is sent, and counts as late."""
    schedule = FrameSchedule(FORM, 0.0, 1000)
    assert schedule.next_frame(0.0) == (0, 0.0)
    schedule.count_encoded(0, 0.11)
    assert schedule.next_frame(0.11) == (1, 0.0)
    schedule.count_encoded(1, 0.15)
    assert schedule.report().late == 1
    assert schedule.report().skipped == 0


def test_a_sender_that_was_stopped_skips_what_is_over() -> None:
    """After two seconds without processor, the next frame is the current one: no burst follows."""
    schedule = FrameSchedule(FORM, 0.0, 1000)
    schedule.count_encoded(0, 0.01)
    assert schedule.next_frame(2.05) == (20, 0.0)
    schedule.count_encoded(20, 2.06)
    assert schedule.next_frame(2.06) == pytest.approx((21, 0.04))
    assert schedule.report().skipped == 19


def test_frames_after_the_end_are_not_skipped_ones() -> None:
    """A sender that is held up beyond the end of its video lost only the frames that the video would have had."""
    schedule = FrameSchedule(FORM, 0.0, 20)
    schedule.count_encoded(0, 0.01)
    assert schedule.next_frame(60.0) == (20, 0.0)
    assert schedule.report().skipped == 19


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=60))
def test_frames_are_in_order_and_never_early(delays: list[float]) -> None:
    """However long encoding takes, numbers rise, no frame is early or begun two frames late, and all are counted."""
    schedule = FrameSchedule(FORM, 0.0, 1000)
    now, last = 0.0, -1
    for delay in delays:
        number, wait_s = schedule.next_frame(now)
        now += wait_s
        assert number > last
        assert number / 10 - 1e-6 <= now < (number + 2) / 10 + 1e-6
        now += delay
        schedule.count_encoded(number, now)
        schedule.count_sent(number, now)
        last = number
    assert len(schedule.report().times) + schedule.report().skipped == last + 1
