"""The schedule of a video's frames on the monotonic clock, and how well it was kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobtester.video.pattern import VideoFormat


@dataclass(frozen=True, slots=True)
class SentFrames:
    """What was sent: the monotonic time at which each frame was complete and handed over, by frame number."""

    form: VideoFormat
    started: float
    times: Mapping[int, float]
    late: int
    skipped: int

    @property
    def span_s(self) -> float:
        """Return the time in the schedule from the first frame to after the last one."""
        return (max(self.times) + 1) / self.form.fps if self.times else 0.0


@dataclass(slots=True)
class FrameSchedule:
    """Names the next frame to send, and counts what was not sent on time.

    Frame n is due n/fps after the start. A sender that falls behind never catches up with a burst: frames whose time
    has passed by more than one frame are skipped, and their numbers and times stay unused. A frame that is finished
    more than one frame after its time is sent, and counted as late. `end` is the number at which the video ends.
    """

    form: VideoFormat
    started: float
    end: int
    late: int = 0
    skipped: int = 0
    _next: int = 0
    _times: dict[int, float] = field(default_factory=dict)

    def next_frame(self, now: float) -> tuple[int, float]:
        """Return the number of the next frame, `end` after the last, and the seconds until it is due, 0 for now."""
        current = min(self.end, int((now - self.started) * self.form.fps))
        if current > self._next + 1:
            self.skipped += current - self._next
            self._next = current
        return self._next, max(0.0, self._due(self._next) - now)

    def count_encoded(self, number: int, now: float) -> None:
        """Count a frame that is encoded, and continue with the one after it."""
        if now - self._due(number) > 1 / self.form.fps:
            self.late += 1
        self._next = number + 1

    def count_sent(self, number: int, now: float) -> None:
        """Keep the time at which the bytes of a frame were complete."""
        self._times[number] = now

    def report(self) -> SentFrames:
        """Return what was sent so far; another thread may call it."""
        return SentFrames(self.form, self.started, dict(self._times), self.late, self.skipped)

    def _due(self, number: int) -> float:
        return self.started + number / self.form.fps
