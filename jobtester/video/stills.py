"""Stills: choose a few frames to show, evenly over a video of unknown length and next to faults, and lay them out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from jobtester.video.fingerprints import is_black, looks_equal
from jobtester.video.frame_record import (
    MAX_STILL_BYTES,
    STRIP_CELL,
    STRIP_COLUMNS,
    FrameRecord,
    Still,
    cell_height,
    strip_size,
)

_WIDTH = 256
_MAX_HEIGHT = 512
_QUALITIES = (75, 40, 15)
_GAP_S = 1.0
_FROZEN_S = 1.0


@dataclass(slots=True)
class StillCollector:
    """Keeps at most `count` stills chosen evenly, and as many next to faults.

    Every n-th frame is kept; when twice as many as wanted are there, every other one is dropped and n doubles.
    """

    count: int
    _evenly: list[Still] = field(default_factory=list)
    _faults: list[Still] = field(default_factory=list)
    _every: int = 1
    _last: tuple[FrameRecord, Any] | None = None
    _frozen_since: FrameRecord | None = None
    _was_black: bool = False
    _is_frozen: bool = False

    def add(self, record: FrameRecord, frame: Any) -> None:
        """Look at a decoded frame, and keep it if it is one to show."""
        if not self.count:
            return
        if record.index % self._every == 0:
            self._keep_evenly(record, frame)
        self._look_for_faults(record, frame)
        self._last = (record, frame)

    def stills(self) -> list[Still]:
        """Return what is to be shown, in order."""
        last = len(self._evenly) - 1
        places = {round(last * place / max(1, self.count - 1)) for place in range(self.count)} if last >= 0 else set()
        evenly = [self._evenly[place] for place in sorted(places)]
        return sorted([*evenly, *self._faults], key=lambda still: still.index)

    def _keep_evenly(self, record: FrameRecord, frame: Any) -> None:
        still = encode_still(record, frame, "evenly")
        if still is not None:
            self._evenly.append(still)
        if len(self._evenly) >= 2 * self.count:
            self._every *= 2
            self._evenly = [still for still in self._evenly if still.index % self._every == 0]

    def _look_for_faults(self, record: FrameRecord, frame: Any) -> None:
        if self._last is not None and record.arrived - self._last[0].arrived > _GAP_S:
            self._keep_fault(*self._last, "gap")
            self._keep_fault(record, frame, "gap")
        black = is_black(record.fingerprint)
        if black and not self._was_black:
            self._keep_fault(record, frame, "black")
        self._was_black = black
        if self._frozen_since is None or not looks_equal(self._frozen_since.fingerprint, record.fingerprint):
            self._frozen_since, self._is_frozen = record, False
        elif not self._is_frozen and record.arrived - self._frozen_since.arrived > _FROZEN_S:
            self._is_frozen = True
            self._keep_fault(record, frame, "frozen")

    def _keep_fault(self, record: FrameRecord, frame: Any, why: str) -> None:
        if len(self._faults) < self.count and not (self._faults and self._faults[-1].index == record.index):
            still = encode_still(record, frame, why)
            if still is not None:
                self._faults.append(still)


def make_strip(stills: Sequence[Still]) -> Still | None:
    """Return one picture of the evenly chosen stills, in rows; None without any."""
    pictures = [Image.open(io.BytesIO(still.jpeg)) for still in stills if still.why == "evenly"]
    if not pictures:
        return None
    height = cell_height(*pictures[0].size)
    strip = Image.new("RGB", strip_size(len(pictures), *pictures[0].size))
    for place, picture in enumerate(pictures):
        corner = (place % STRIP_COLUMNS * STRIP_CELL, place // STRIP_COLUMNS * height)
        strip.paste(picture.resize((STRIP_CELL, height)), corner)
    jpeg = _encode_small(strip)
    return None if jpeg is None else Still(stills[0].index, stills[0].arrived, "strip", jpeg)


def encode_still(record: FrameRecord, frame: Any, why: str) -> Still | None:
    """Return a frame as a JPEG at most 256 pixels wide, None if it does not get small enough."""
    scale = min(1.0, _WIDTH / frame.width, _MAX_HEIGHT / frame.height)
    width, height = (max(2, round(side * scale) // 2 * 2) for side in (frame.width, frame.height))
    picture = frame.reformat(width=width, height=height, format="rgb24").to_image()
    jpeg = _encode_small(picture)
    return None if jpeg is None else Still(record.index, record.arrived, why, jpeg)


def _encode_small(picture: Image.Image) -> bytes | None:
    for quality in _QUALITIES:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        if out.tell() <= MAX_STILL_BYTES:
            return out.getvalue()
    return None
