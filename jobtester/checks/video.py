"""`video`: the answer names an H.264 video of the asked size and length in which something moves."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput, Expectation
from jobtester.checks.image import FLAT
from jobtester.checks.media import decoding, entry_content, entry_urls, find_entries

_SMALL = (64, 64)
_STILL = 4  # of 255: what compression alone changes in a reduced picture stays below this (2 was seen)
_DEFAULT_FPS = 7.0
_MAX_SIDE = 4096
_EDITED = 0.2  # share by which what a file says of its length may differ from the times of its frames
_BEGIN = 64 * 1024  # bytes in which the first box of an MP4 that says something has to come
_FIRST = (b"ftyp", b"styp", b"moov", b"moof")
_BEFORE = (b"free", b"skip", b"wide", b"uuid", b"mdat", b"junk")
_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"mif1")
# What browsers play, by the decoder's name.
_CODECS = {
    "h264": "H.264",
    "hevc": "HEVC",
    "av1": "AV1",
    "libdav1d": "AV1",
    "libaom-av1": "AV1",
    "vp9": "VP9",
    "libvpx-vp9": "VP9",
    "vp8": "VP8",
    "libvpx": "VP8",
}


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the video, `frames` is how many it should have, within a fifth more or less."""

    path: str = "images"
    frames: int = 25

    def __post_init__(self) -> None:
        """Refuse values that no video can meet."""
        if not 2 <= self.frames <= 500:
            raise ValueError("frames is between 2 and 500")


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """Decoded frames as small gray pictures, the seconds that they are shown, the codec, and the kind of file."""

    frames: list[Any]
    seconds: float
    codec: str
    form: str


def file_urls(answer: Any, params: Params) -> list[str]:
    """Give the video's address."""
    return entry_urls(answer, params.path)


def load_decoders() -> None:
    """Load the decoders."""
    import av  # noqa: F401
    from PIL import ImageChops, ImageStat  # noqa: F401


def check(sample: CheckInput, params: Params) -> None:
    """Look at the video. Raises CheckFailedError for the first thing that is not right."""
    entry = find_entries(sample.answer, params.path)[0]
    content = entry_content(sample, entry, params.path)
    expected = sample.expectation
    film = decode_video(content, limit=2 * params.frames, size=expected.requested_size)
    frames, seconds = film.frames, film.seconds
    least, most = int(params.frames * 0.8), int(params.frames * 1.2) + 1
    if not least <= len(frames) <= most:
        shown = f"more than {most}" if len(frames) > most else str(len(frames))
        raise CheckFailedError("frames", f"the video has {shown} frames, about {params.frames} expected")
    _check_duration(seconds, len(frames), expected)
    _check_movement(frames)
    if film.codec != "H.264" or film.form != "mp4":
        sample.notes.add("codec", f"the video is {film.codec} in {film.form}, not H.264 in MP4; browsers play it")


def decode_video(content: bytes, *, limit: int, size: tuple[int, int] | None = None) -> DecodedVideo:
    """Decode at most `limit` frames, each brought to a small gray picture.

    Raises CheckFailedError for what no browser plays.
    """
    form = _form(content)
    if form == "matroska":
        return _decoded(content, form, limit, size)
    begin = content.find(b"ftyp", 0, _BEGIN) - 4
    try:
        return _decoded(content, form, limit, size)
    except CheckFailedError as wrong:
        if wrong.problem != "undecodable" or begin <= 0 or content[:begin].strip(b"\0"):
            raise
    return _decoded(content[begin:], form, limit, size)  # zeros before the file, which its own places do not count


def _form(content: bytes) -> str:
    """Name the kind of file: MP4 whatever box comes first, or WebM. Raises CheckFailedError for any other."""
    if content[:4] == b"\x1a\x45\xdf\xa3" and b"webm" in content[:64]:
        return "matroska"
    first = content[4:8]
    if first in _FIRST or (first in _BEFORE and b"ftyp" in content[:_BEGIN]) or content[:8] == bytes(8):
        if first in (b"ftyp", b"styp") and content[8:12] in _PICTURES:
            raise CheckFailedError("not_a_video", f"the file is a picture, not a video: its brand is {content[8:12]!r}")
        if first != bytes(4) or content[:_BEGIN].lstrip(b"\0")[1:5] == b"ftyp":
            return "mp4"
    raise CheckFailedError("not_a_video", f"the file is no MP4: it begins with {content[:12]!r}")


def _decoded(content: bytes, form: str, limit: int, size: tuple[int, int] | None) -> DecodedVideo:
    import av

    with (
        decoding("video", content),
        av.open(io.BytesIO(content), "r", format=form, metadata_errors="ignore") as container,
    ):
        stream: Any = container.streams.best("video")
        if stream is None:
            raise CheckFailedError("no_stream", "the file has no video stream")
        codec = stream.codec_context
        if codec.name not in _CODECS:
            raise CheckFailedError("codec", f"the video is {codec.name}, not H.264")
        if size is not None and size not in ((codec.width, codec.height), (codec.height, codec.width)):
            raise CheckFailedError("size", f"the video is {codec.width}×{codec.height}, not {size[0]}×{size[1]}")
        if not (0 < codec.width <= _MAX_SIDE and 0 < codec.height <= _MAX_SIDE):
            raise CheckFailedError("too_large", f"the video claims to be {codec.width}×{codec.height}")
        codec.thread_count = 1
        frames: list[Any] = []
        times: list[float] = []
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise CheckFailedError("undecodable", f"frame {len(frames) + 1} of the video is damaged")
            if not frames:
                _check_shown_size(frame, size)
            frames.append(_small(frame))
            if frame.time is not None:
                times.append(frame.time)
            if len(frames) >= limit:
                break
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    shown = _shown(times)
    if seconds and shown and abs(seconds - shown) > _EDITED * shown:
        seconds = shown  # a file in fragments, or cut by an edit list, says what it holds and not what is played
    return DecodedVideo(frames, seconds or shown, _CODECS[codec.name], form)


def _check_shown_size(frame: Any, size: tuple[int, int] | None) -> None:
    """Compare the size at which a player shows a frame: some files are to be turned by a quarter."""
    width, height = (frame.width, frame.height)
    if frame.rotation % 180 == 90:
        width, height = height, width
    if size is not None and (width, height) != size:
        turned = f", turned by {frame.rotation % 360}°" if frame.rotation else ""
        raise CheckFailedError("size", f"the video is shown as {width}×{height}{turned}, not {size[0]}×{size[1]}")


def _shown(times: list[float]) -> float:
    """Return how long frames are shown that come at these times, the last one as long as those before."""
    if len(times) < 2:
        return 0.0
    span = max(times) - min(times)
    return span * len(times) / (len(times) - 1)


def _small(frame: Any) -> Any:
    if frame.width > _MAX_SIDE or frame.height > _MAX_SIDE:
        raise CheckFailedError("too_large", f"a frame is {frame.width}×{frame.height}")
    return frame.reformat(width=_SMALL[0], height=_SMALL[1], format="gray").to_image()


def _check_duration(seconds: float, frames: int, expected: Expectation) -> None:
    fps = expected.find_number("fps") or _DEFAULT_FPS
    right = frames / fps
    if abs(seconds - right) > max(0.5, right * 0.2):
        raise CheckFailedError(
            "duration", f"the video takes {seconds:.2f} s, {right:.2f} s expected for {frames} frames at {fps:g}/s"
        )


def _check_movement(frames: list[Any]) -> None:
    from PIL import ImageChops, ImageStat

    if all(max(ImageStat.Stat(frame).stddev) < FLAT for frame in frames):
        raise CheckFailedError("flat", "every frame is one flat colour")
    first = frames[0]
    changes = (ImageStat.Stat(ImageChops.difference(first, other)).extrema for other in frames[1:])
    if all(high < _STILL for extrema in changes for _, high in extrema):
        raise CheckFailedError("still", "every frame shows the same")
