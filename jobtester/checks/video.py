"""`video`: the answer names an H.264 video of the requested size and length that contains motion."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.image import FLAT_DEVIATION
from jobtester.checks.media import decoding, entry_content, entry_urls, find_entries

# Frames are compared as small gray pictures: enough to see whether anything moves, and quick.
_COMPARED_SIZE = (64, 64)
_MIN_CHANGE = 4  # of 255: what compression alone changes in such a picture stays below this (2 was seen)
_USUAL_FPS = 7.0
_MAX_SIDE = 4096
_LENGTH_SLACK = 0.2  # share by which the number of frames and the duration may be off
_MIN_DURATION_SLACK_S = 0.5
_MAX_CLAIM_ERROR = 0.2  # share by which a file's claim of its length may differ from the times of its frames
_HEADER_BYTES = 64 * 1024  # in which the first box of an MP4 that identifies it has to come
_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"moof")
_FILLER_BOXES = (b"free", b"skip", b"wide", b"uuid", b"mdat", b"junk")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1")
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
    """`path` is the path of the video, `frames` the expected number of frames, with a tolerance of a fifth."""

    path: str = "images"
    frames: int = 25

    def __post_init__(self) -> None:
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
    """Return the address of the video."""
    return entry_urls(answer, params.path)


def load_decoders() -> None:
    """Load the decoders."""
    import av  # noqa: F401
    from PIL import ImageChops, ImageStat  # noqa: F401


def check(sample: CheckInput, params: Params) -> None:
    """Check the video. Raises CheckFailedError for the first thing that is wrong."""
    entry = find_entries(sample.answer, params.path)[0]
    content = entry_content(sample, entry, params.path)
    expected = sample.expectation
    video = decode_video(content, limit=2 * params.frames, size=expected.requested_size)
    count = len(video.frames)
    min_frames, max_frames = int(params.frames * (1 - _LENGTH_SLACK)), int(params.frames * (1 + _LENGTH_SLACK)) + 1
    if not min_frames <= count <= max_frames:
        shown = f"more than {max_frames}" if count > max_frames else str(count)
        raise CheckFailedError("frames", f"the video has {shown} frames, about {params.frames} expected")
    fps = expected.find_number("fps") or _USUAL_FPS
    expected_s = count / fps
    if abs(video.seconds - expected_s) > max(_MIN_DURATION_SLACK_S, expected_s * _LENGTH_SLACK):
        shown = f"{expected_s:.2f} s expected for {count} frames at {fps:g}/s"
        raise CheckFailedError("duration", f"the video lasts {video.seconds:.2f} s, {shown}")
    _check_movement(video.frames)
    if video.codec != "H.264" or video.form != "mp4":
        sample.notes.add("codec", f"the video is {video.codec} in {video.form}, not H.264 in MP4; browsers play it")


def _check_movement(frames: list[Any]) -> None:
    from PIL import ImageChops, ImageStat

    if all(max(ImageStat.Stat(frame).stddev) < FLAT_DEVIATION for frame in frames):
        raise CheckFailedError("flat", "every frame is one flat color")
    # All are compared with the first one: a slow movement changes little from one frame to the next.
    first = frames[0]
    changes = (ImageStat.Stat(ImageChops.difference(first, other)).extrema for other in frames[1:])
    if all(highest < _MIN_CHANGE for extrema in changes for _, highest in extrema):
        raise CheckFailedError("still", "every frame shows the same")


def decode_video(content: bytes, *, limit: int, size: tuple[int, int] | None = None) -> DecodedVideo:
    """Return at most `limit` frames, each as a small gray picture.

    Raises CheckFailedError for what no browser plays, and before decoding for another `size`.
    """
    form = _detect_form(content)
    if form == "matroska":
        return _decode(content, form, limit, size)
    start = content.find(b"ftyp", 0, _HEADER_BYTES) - 4
    try:
        return _decode(content, form, limit, size)
    except CheckFailedError as error:
        if error.problem != "undecodable" or start <= 0 or content[:start].strip(b"\0"):
            raise
    # Zeros come before the file, and the offsets in it do not count them.
    return _decode(content[start:], form, limit, size)


def decode_first_frame(content: bytes) -> Any:
    """Return the first frame of a video as a picture in color. Raises CheckFailedError for what no browser plays."""
    import av

    with (
        decoding("video", content),
        av.open(io.BytesIO(content), "r", format=_detect_form(content), metadata_errors="ignore") as container,
    ):
        stream: Any = container.streams.best("video")
        if stream is None:
            raise CheckFailedError("no_stream", "the file has no video stream")
        _check_codec(stream.codec_context, None)
        stream.codec_context.thread_count = 1
        frame = next(container.decode(stream))
        if frame.width > _MAX_SIDE or frame.height > _MAX_SIDE:
            raise CheckFailedError("too_large", f"a frame is {frame.width}×{frame.height}")
        return frame.to_image()


def _detect_form(content: bytes) -> str:
    """Return the kind of file: MP4 whatever box comes first, or WebM. Raises CheckFailedError for any other."""
    if content[:4] == b"\x1a\x45\xdf\xa3" and b"webm" in content[:64]:
        return "matroska"
    box = content[4:8]
    has_zeros = content[:8] == bytes(8)
    if box in _FIRST_BOXES or (box in _FILLER_BOXES and b"ftyp" in content[:_HEADER_BYTES]) or has_zeros:
        if box in (b"ftyp", b"styp") and content[8:12] in _PICTURE_BRANDS:
            raise CheckFailedError("not_a_video", f"the file is a picture, not a video: its brand is {content[8:12]!r}")
        if box != bytes(4) or content[:_HEADER_BYTES].lstrip(b"\0")[1:5] == b"ftyp":
            return "mp4"
    raise CheckFailedError("not_a_video", f"the file is not an MP4: it begins with {repr(content[:12])[1:]}")


def _decode(content: bytes, form: str, limit: int, size: tuple[int, int] | None) -> DecodedVideo:
    import av

    frames: list[Any] = []
    times: list[float] = []
    with (
        decoding("video", content),
        av.open(io.BytesIO(content), "r", format=form, metadata_errors="ignore") as container,
    ):
        stream: Any = container.streams.best("video")
        if stream is None:
            raise CheckFailedError("no_stream", "the file has no video stream")
        codec = stream.codec_context
        _check_codec(codec, size)
        # Threads of the decoder would use up processor time side by side, and confuse the limit on it.
        codec.thread_count = 1
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise CheckFailedError("undecodable", f"frame {len(frames) + 1} of the video is damaged")
            if not frames:
                _check_shown_size(frame, size)
            # The size may change on the way, whatever the header says.
            if frame.width > _MAX_SIDE or frame.height > _MAX_SIDE:
                raise CheckFailedError("too_large", f"a frame is {frame.width}×{frame.height}")
            width, height = _COMPARED_SIZE
            frames.append(frame.reformat(width=width, height=height, format="gray").to_image())
            if frame.time is not None:
                times.append(frame.time)
            if len(frames) >= limit:
                break
        claimed_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        name = _CODECS[codec.name]
    # The last frame is shown as long as those before it on average.
    shown_s = (max(times) - min(times)) * len(times) / (len(times) - 1) if len(times) > 1 else 0.0
    # A file in fragments, or cut by an edit list, claims the length of what it holds and not of what is played.
    is_claim_wrong = shown_s and abs(claimed_s - shown_s) > _MAX_CLAIM_ERROR * shown_s
    return DecodedVideo(frames, shown_s if is_claim_wrong or not claimed_s else claimed_s, name, form)


def _check_codec(codec: Any, size: tuple[int, int] | None) -> None:
    """Check what the header says, before time and memory are spent on frames."""
    if codec.name not in _CODECS:
        raise CheckFailedError("codec", f"the video is {codec.name}, not H.264")
    if size is not None and size not in ((codec.width, codec.height), (codec.height, codec.width)):
        raise CheckFailedError("size", f"the video is {codec.width}×{codec.height}, not {size[0]}×{size[1]}")
    if not (0 < codec.width <= _MAX_SIDE and 0 < codec.height <= _MAX_SIDE):
        raise CheckFailedError("too_large", f"the video claims to be {codec.width}×{codec.height}")


def _check_shown_size(frame: Any, size: tuple[int, int] | None) -> None:
    """Check the size at which a player shows a frame: some files are to be turned by a quarter."""
    width, height = (frame.width, frame.height)
    if frame.rotation % 180 == 90:
        width, height = height, width
    if size is not None and (width, height) != size:
        turned = f", turned by {frame.rotation % 360}°" if frame.rotation else ""
        raise CheckFailedError("size", f"the video is shown as {width}×{height}{turned}, not {size[0]}×{size[1]}")
