"""The meter: figures from made-up frames, whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.domain.video_measures import Delay, DelayMethod, VideoMeasures
from jobtester.video.frame_record import FINGERPRINT_BYTES, FrameRecord
from jobtester.video.frame_schedule import SentFrames
from jobtester.video.meter import Measurement, measure_video
from jobtester.video.pattern import VideoFormat

FORM = VideoFormat(512, 512, 24)
START = 1000.0


def sent_frames(seconds: float) -> SentFrames:
    """Return frames that were all sent on time from START on."""
    return SentFrames(FORM, START, {number: START + number / 24 for number in range(int(24 * seconds))}, 0, 0)


def picture(number: int, base: int = 0) -> bytes:
    """Return the fingerprint of a picture that differs from its neighbors, and repeats after four seconds."""
    bright = 100 if FORM.is_bright(number) else 0
    place = number % 96
    return bytes((40 + base + bright + (cell + 7 * place) % 97) % 256 for cell in range(FINGERPRINT_BYTES))


def frame(index: int, arrived: float, **changes: object) -> FrameRecord:
    """Return the frame that a model would make of frame `index` of the pattern: no mark, the same brightness."""
    record = FrameRecord(
        index,
        arrived,
        index / 24,
        None,
        False,
        180.0 if FORM.is_bright(index) else 70.0,
        picture(index),
        False,
        512,
        512,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def echo(seconds: float, delay: float = 0.2) -> list[FrameRecord]:
    """Return the frames of an echo: as sent, `delay` later."""
    return [
        frame(number, START + number / 24 + delay, mark=number, is_input=True) for number in range(int(24 * seconds))
    ]


def check_delay(delay: Delay, method: DelayMethod, seconds: float, samples: int) -> None:
    """Check that each of so many samples had the same delay."""
    assert (delay.method, delay.samples) == (method, samples)
    assert delay.p50_s == pytest.approx(seconds)
    assert delay.p95_s == pytest.approx(seconds)


def measure(frames: list[FrameRecord], ended: float = 10.0, **updates: tuple[float, ...]) -> VideoMeasures:
    """Return the measures of frames, for a call 1 s before the first frame was sent."""
    return measure_video(frames, sent_frames(10), Measurement(START - 1, START + ended, **updates))


def test_an_echo_is_measured_exactly() -> None:
    """First frame, rate, gap and delay of an even stream are those it was made with."""
    measures = measure(echo(9.8))
    assert measures.output.frames == 235
    assert measures.output.first_frame_s == pytest.approx(1.2)
    assert measures.output.output_fps == pytest.approx(24, abs=0.2)
    assert measures.output.longest_gap_s == pytest.approx(1 / 24, abs=0.01)
    assert measures.output.longest_pts_gap_s == pytest.approx(1 / 24)
    assert (measures.output.stalls_over_1s, measures.output.stalls_over_10s) == (0, 0)
    check_delay(measures.delay, DelayMethod.MARKS, 0.2, 210)  # the first second does not count
    assert measures.picture.input_share == 1
    assert measures.picture.distinct_marks == 235
    assert (measures.picture.frozen_frames, measures.picture.black_share) == (0, 0)
    assert measures.picture.repeated_share == 0
    assert measures.input.fps == pytest.approx(24)
    assert measures.input.seconds == 10


def test_nothing_is_measured_of_nothing() -> None:
    """Without a frame there is no first frame and no delay, and the gap is the whole wait."""
    measures = measure([], ended=14.0)
    assert measures.output.first_frame_s is None
    assert measures.output.longest_gap_s == 15
    assert (measures.output.stalls_over_1s, measures.output.stalls_over_10s) == (1, 1)
    assert measures.delay == Delay()
    assert measures.picture.frozen_frames == 0


@pytest.mark.parametrize(
    ("removed", "longest", "over_1s", "over_10s"),
    [((24, 36), 0.54, 0, 0), ((24, 60), 1.54, 1, 0), ((100, 236), 5.675, 1, 0)],
    ids=["short", "stall", "ends-early"],
)
def test_gaps_and_stalls(removed: tuple[int, int], longest: float, over_1s: int, over_10s: int) -> None:
    """Gaps count from frame to frame, and to the end of measuring for a stream that ends early."""
    measures = measure([record for record in echo(9.8) if not removed[0] <= record.index < removed[1]])
    assert measures.output.longest_gap_s == pytest.approx(longest, abs=0.01)
    assert (measures.output.stalls_over_1s, measures.output.stalls_over_10s) == (over_1s, over_10s)


def test_times_in_the_stream_may_begin_again() -> None:
    """Segments that each begin at 0, and a second output, make no gap; frames that are missing do."""
    frames = [replace(record, pts_s=record.index % 24 / 24) for record in echo(9.8)]
    assert measure(frames).output.longest_pts_gap_s == pytest.approx(1 / 24)
    assert measure(frames[:30] + frames[40:]).output.longest_pts_gap_s == pytest.approx(11 / 24)
    outputs = echo(4) + [replace(record, index=record.index - 96) for record in echo(8)[96:]]
    assert measure(outputs).output.longest_pts_gap_s == pytest.approx(1 / 24)


def test_a_stall_of_more_than_ten_seconds_is_both() -> None:
    """A long stall counts in both counts."""
    measures = measure(echo(2), ended=13.0)
    assert (measures.output.stalls_over_1s, measures.output.stalls_over_10s) == (1, 1)


def test_frames_after_the_end_do_not_count() -> None:
    """What arrives after the measurement changes nothing."""
    assert measure(echo(9.8), ended=5.0) == measure(echo(9.8)[:116], ended=5.0)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3)), max_size=60))
def test_figures_are_always_in_range(arrivals: list[tuple[float, int]]) -> None:
    """Whatever arrives whenever, counts, shares and seconds stay in their ranges."""
    frames = [replace(frame(kind * 30, START + arrived), index=index) for index, (arrived, kind) in enumerate(arrivals)]
    measures = measure(frames, updates=(START + 5,))
    assert measures.output.frames == sum(arrived <= 10 for arrived, _ in arrivals)
    assert 0 <= measures.output.longest_gap_s <= 11
    assert measures.output.stalls_over_10s <= measures.output.stalls_over_1s <= 12
    assert 0 <= measures.picture.frozen_s <= 10
    assert 0 <= measures.picture.black_share <= 1
    assert measures.picture.frozen_frames <= measures.output.frames
    assert len(measures.reactions_s) == 1


def test_the_delay_of_a_model_is_measured_by_scene_cuts() -> None:
    """A model destroys the marks; the cuts still show when it answers."""
    frames = [frame(number, START + number / 24 + 0.8) for number in range(220)]
    delay = measure(frames).delay
    check_delay(delay, DelayMethod.SCENE_CUTS, 0.8, 4)


def test_a_gradual_cut_counts_when_it_is_half_done() -> None:
    """A model that blends scenes over several frames is measured at the middle of it."""
    levels = [
        float(sum(180 if FORM.is_bright(n) else 70 for n in range(number - 6, number + 1)) / 7)
        for number in range(6, 220)
    ]
    frames = [
        frame(number, START + number / 24, brightness=level)
        for number, level in zip(range(6, 220), levels, strict=True)
    ]
    delay = measure(frames).delay
    assert delay.method is DelayMethod.SCENE_CUTS
    assert delay.p50_s == pytest.approx(3 / 24)


@pytest.mark.parametrize("noise", [0, 5, 15])
def test_noise_makes_no_cuts(noise: int) -> None:
    """Flicker is not a scene cut."""
    dice = random.Random(noise)
    frames = [
        frame(
            number,
            START + number / 24 + 0.5,
            brightness=(180 if FORM.is_bright(number) else 70) + dice.uniform(-noise, noise),
        )
        for number in range(220)
    ]
    check_delay(measure(frames).delay, DelayMethod.SCENE_CUTS, 0.5, 4)


def test_no_delay_is_claimed_without_a_sign() -> None:
    """A picture without marks and cuts says nothing about the delay."""
    frames = [frame(number, START + number / 24, brightness=100.0) for number in range(220)]
    assert measure(frames).delay == Delay()


def test_a_few_marks_by_chance_are_not_an_echo() -> None:
    """Marks count only if a tenth of the frames has them, and never before they were sent."""
    frames = [frame(number, START + number / 24 + 0.5) for number in range(220)]
    frames[7] = replace(frames[7], mark=3)
    assert measure(frames).delay.method is DelayMethod.SCENE_CUTS
    invented = [replace(record, mark=239) for record in frames]
    assert measure(invented).delay.method is DelayMethod.SCENE_CUTS


def test_a_frozen_picture_is_not_a_slow_one() -> None:
    """A repeated mark counts once for the delay, and the run of equal pictures is found."""
    frames = echo(9.8)
    frames[100:148] = [replace(record, mark=100, fingerprint=picture(100)) for record in frames[100:148]]
    measures = measure(frames)
    assert measures.picture.frozen_frames == 48
    assert measures.picture.frozen_s == pytest.approx(2.0)
    assert measures.delay.p95_s == pytest.approx(0.2)


def test_a_video_padded_with_repeats_is_no_faster() -> None:
    """A model that shows each picture three times has two repeats in three frames, and is not frozen for long."""
    frames = [replace(record, fingerprint=picture(record.index // 3 * 3)) for record in echo(9.8)]
    measures = measure(frames)
    assert measures.picture.repeated_share == pytest.approx(2 / 3, abs=0.01)
    assert measures.picture.frozen_s < 0.2


def test_a_slow_change_is_not_frozen() -> None:
    """Pictures are compared with the first of their run: what drifts by little each time is no run."""
    drifting = [
        replace(record, fingerprint=bytes([number // 2]) * FINGERPRINT_BYTES) for number, record in enumerate(echo(9.8))
    ]
    assert measure(drifting).picture.frozen_frames <= 6


def test_compression_noise_does_not_hide_a_frozen_picture() -> None:
    """A still picture whose cells flicker by one level is frozen, to the end of measuring."""
    dice = random.Random(3)
    frames = [
        replace(record, fingerprint=bytes(100 + dice.randint(0, 1) for _ in range(FINGERPRINT_BYTES)))
        for record in echo(9.8)
    ]
    assert measure(frames).picture.frozen_s == pytest.approx(9.8)


def test_black_pictures_are_counted() -> None:
    """The share of black pictures is that of all frames."""
    black = bytes([16]) * FINGERPRINT_BYTES
    frames = [replace(record, fingerprint=black) if record.index % 4 == 0 else record for record in echo(5)]
    assert measure(frames).picture.black_share == 0.25


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda number: picture(number, base=60), 0.5),
        (lambda number: bytes(255 - level for level in picture(number)), 0.5),
        (lambda number: picture(number), None),
        (lambda number: picture(number + 1), None),
    ],
    ids=["another-style", "inverted", "none", "only-its-place"],
)
def test_reaction_to_changed_parameters(change: Callable[[int], bytes], expected: float | None) -> None:
    """A picture unlike any before the update is a reaction; the usual movement and its cuts are not."""
    frames = [
        record if record.arrived < START + 6.5 else replace(record, fingerprint=change(record.index))
        for record in echo(9.8)
    ]
    (reaction,) = measure(frames, updates=(START + 6.0,)).reactions_s
    assert reaction == (None if expected is None else pytest.approx(expected, abs=1 / 24))


def test_a_glitch_is_not_a_reaction() -> None:
    """Two odd frames do not count, and each update has its own time."""
    frames = echo(9.8)
    for place in (150, 151):
        frames[place] = replace(frames[place], fingerprint=bytes([255]) * FINGERPRINT_BYTES)
    assert measure(frames, updates=(START + 6.0, START + 8.0)).reactions_s == (None, None)


def test_the_testers_own_lateness_is_reported() -> None:
    """Late and skipped frames of the input are in the measures, as a share of all."""
    sent = replace(sent_frames(10), late=6, skipped=60)
    measures = measure_video([], sent, Measurement(START, START + 1))
    assert (measures.input.late, measures.input.skipped) == (6, 60)
    assert measures.input.late_share == pytest.approx(66 / 300)


def test_what_was_held_back_at_the_start_lends_no_frames_and_no_delay() -> None:
    """A hundred frames that come at once with the first one change neither the rate nor the delay of a slow output."""
    burst = [frame(number, START + 5, mark=number) for number in range(100)]
    steady = [frame(120 + 4 * number, START + 5.2 + number / 6, mark=120 + 4 * number) for number in range(28)]
    measures = measure(burst + steady)
    assert measures.output.frames == 128
    assert measures.output.first_frame_s == 6.0
    assert measures.output.output_fps == pytest.approx(6.0, abs=0.3)
    assert measures.delay.p95_s == pytest.approx(0.2, abs=0.02)
