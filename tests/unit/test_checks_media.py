"""Files as real encoders write them: what a player or browser opens passes, what is damaged or garbage fails."""

from __future__ import annotations

import base64
import json
import math
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
import pytest
from PIL import Image

from jobtester.checks import json_field
from jobtester.checks.base import Check, CheckFailedError, Expectation, FetchedFile
from jobtester.checks.evaluation import CheckTask, evaluate
from jobtester.checks.media import decoding
from jobtester.checks.worker import Worker
from jobtester.domain.reasons import Fault, Finding
from jobtester.pipelines.assets import builtin_folder
from tests.unit.corpus import media_factory as make
from tests.unit.corpus import media_shapes as shapes
from tests.unit.corpus.answers import FILE, images, mask, masks, request

USUAL = len(request("text-to-speech").expectation.parameters["text"]) / 15
COUNT = int(USUAL * shapes.RATE)
LIST = shapes.unpadded_chunk(b"LIST", b"INFOISFT\1\0\0\0L")
ODD = bytes(int(128 + 120 * value) for value in shapes.tone(USUAL))[: COUNT // 2 * 2 - 1]
NAN = struct.pack("<f", math.nan)
EXTENSIBLE = struct.pack("<HHI", 22, 16, 4) + b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"


@dataclass(frozen=True)
class Row:
    """A file as an encoder writes it. `problem` is the expected one, empty for none; `notes` are the expected notes."""

    pipeline: str
    name: str
    make_content: Callable[[], bytes]
    problem: str = ""
    notes: tuple[str, ...] = ()
    fault: Fault = Fault.ORCHESTRATOR

    def __str__(self) -> str:
        """Return the row's name in a test report."""
        return f"{self.pipeline}: {self.name}"


def sound(name: str, make_content: Callable[[], bytes], problem: str = "", *notes: str) -> Row:
    """Return a row of text-to-speech."""
    return Row("text-to-speech", name, make_content, problem, notes)


def picture(name: str, make_content: Callable[[], bytes], problem: str = "", *notes: str) -> Row:
    """Return a row of text-to-image, 512×512."""
    return Row("text-to-image", name, make_content, problem, notes)


def video(name: str, make_content: Callable[[], bytes], problem: str = "", *notes: str) -> Row:
    """Return a row of image-to-video, 25 frames of 1024×576."""
    return Row("image-to-video", name, make_content, problem, notes)


def mp3(share: float, **form: Any) -> bytes:
    """Encode a part of what is spoken as MP3."""
    return shapes.sound(USUAL * share, "mp3", "libmp3lame", **form)


def noise(size: int) -> bytes:
    """Return bytes without meaning, always the same."""
    return random.Random(1).randbytes(size)


def jpeg_to_turn(orientation: int) -> bytes:
    """Return a JPEG that is to be turned, as cameras write it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return shapes.save(shapes.draw(), "JPEG", exif=exif)


SOUNDS = [
    sound("WAV with sizes in 64 bits", lambda: shapes.rf64(USUAL)),
    sound("broadcast WAV with sizes in 64 bits", lambda: shapes.rf64(USUAL, b"BW64")),
    sound("streamed WAV, size 0", lambda: shapes.wav(shapes.pcm(USUAL), size=0)),
    sound("streamed WAV, size 2³²-1", lambda: shapes.wav(shapes.pcm(USUAL), size=0xFFFFFFFF)),
    sound("extensible WAV", lambda: shapes.wav(shapes.pcm(USUAL), tag=0xFFFE, extra=EXTENSIBLE)),
    sound("32 bit floats", lambda: shapes.wav(shapes.samples("f", shapes.tone(USUAL)), tag=3, bits=32)),
    sound("64 bit floats", lambda: shapes.wav(shapes.samples("d", shapes.tone(USUAL)), tag=3, bits=64)),
    sound("24 bits", lambda: shapes.wav(shapes.sound(USUAL, "s24le", "pcm_s24le", format_="s32"), bits=24)),
    sound("8 bits", lambda: shapes.wav(shapes.sound(USUAL, "u8", "pcm_u8", format_="u8"), bits=8)),
    sound("mu-law", lambda: shapes.wav(shapes.sound(USUAL, "mulaw", "pcm_mulaw", format_="s16"), tag=7, bits=8)),
    sound("A-law", lambda: shapes.wav(shapes.sound(USUAL, "alaw", "pcm_alaw", format_="s16"), tag=6, bits=8)),
    sound(
        "LIST, JUNK and bext before the data",
        lambda: shapes.wav(
            shapes.pcm(USUAL),
            before=shapes.chunk(b"JUNK", bytes(28)) + shapes.chunk(b"bext", bytes(602)),
            after=shapes.chunk(b"LIST", b"INFOISFT\5\0\0\0Lavf\0"),
        ),
    ),
    sound("text behind the data", lambda: shapes.wav(shapes.pcm(USUAL)) + shapes.chunk(b"LIST", b"INFO")),
    sound("a list of odd length, not padded", lambda: shapes.wav(shapes.pcm(USUAL), after=LIST)),
    sound("odd chunks everywhere, not padded", lambda: shapes.wav(
        shapes.pcm(USUAL), before=shapes.unpadded_chunk(b"JUNK", b"abcde") + shapes.unpadded_chunk(b"bext", bytes(603)),
        after=LIST + shapes.chunk(b"fact", bytes(4)) + shapes.unpadded_chunk(b"id3 ", b"ID3\4\0\0\0\0\0\0\0"))),
    sound("an odd chunk that is padded with a letter", lambda: shapes.wav(
        shapes.pcm(USUAL), after=LIST + b"x")),
    sound("8 bits of an odd length, and text behind them", lambda: shapes.wav(
        ODD, bits=8) + shapes.chunk(b"LIST", b"INFO")),
    sound("silence behind an odd list", lambda: shapes.wav(bytes(2 * COUNT), after=LIST), "silent"),
    sound("cut off in an odd list", lambda: shapes.wav(b"", after=LIST)[:-12], "undecodable"),
    sound("AIFF", lambda: shapes.sound(USUAL, "aiff", "pcm_s16be", format_="s16"), "", "format"),
    sound("AU", lambda: shapes.sound(USUAL, "au", "pcm_s16be", format_="s16"), "", "format"),
    sound("CAF", lambda: shapes.sound(USUAL, "caf", "pcm_s16be", format_="s16"), "", "format"),
    sound("AMR that is none", lambda: b"#!AMR\n" + noise(500), "undecodable"),
    sound("Opus in Ogg", lambda: shapes.sound(USUAL, "ogg", "libopus", rate=48_000, format_="flt")),
    sound("AAC in MP4", lambda: make.sound(USUAL, "mp4")),
    sound("bare AAC", lambda: shapes.sound(USUAL, "adts", "aac")),
    sound("Opus in WebM", lambda: shapes.sound(USUAL, "webm", "libopus", rate=48_000, format_="flt")),
    sound("MP3 with a large tag", lambda: b"ID3\4\0\0\0\0\x7f\x7f" + bytes(0x3FFF) + mp3(1)),
    sound("two MP3s joined", lambda: mp3(0.5) * 2, "", "broken_frames"),
    sound("ten MP3s joined", lambda: mp3(0.1) * 10, "", "broken_frames"),
    sound("joined in the middle of a frame", lambda: mp3(0.6)[:-300] + mp3(0.5), "", "broken_frames"),
    sound("a tag in the middle", lambda: mp3(0.5) + b"ID3\4\0\0\0\0\2\0" + bytes(256) + mp3(0.5), "", "broken_frames"),
    sound("mono and stereo joined", lambda: mp3(0.5) + mp3(0.5, layout="stereo"), "", "broken_frames"),
    sound("two rates joined", lambda: mp3(0.5) + mp3(0.5, rate=22_050), "", "broken_frames"),
    sound("a single NaN", lambda: shapes.wav(
        NAN + shapes.samples("f", shapes.tone(USUAL)), tag=3, bits=32)),
    sound("on a high constant", lambda: shapes.wav(
        shapes.samples("h", (20_000 + int(9000 * value) for value in shapes.tone(USUAL))))),
    sound("a loud sine", lambda: make.sound(USUAL, loud=1.0)),
    sound("speech, then a long silence", lambda: shapes.wav(
        shapes.samples("h", shapes.quiet_but(USUAL * 2, range(COUNT // 2))))),
    sound("NaN throughout", lambda: shapes.wav(NAN * COUNT, tag=3, bits=32), "not_finite"),
    sound("NaN in a tenth", lambda: shapes.wav(
        shapes.samples("f", (math.nan if index % 10 == 0 else 0.1 for index in range(COUNT))), tag=3, bits=32),
        "not_finite"),
    sound("infinite", lambda: shapes.wav(shapes.samples("d", [math.inf] * COUNT), tag=3, bits=64), "not_finite"),
    sound("constant at full scale", lambda: shapes.wav(shapes.samples("h", [32767] * COUNT)), "silent"),
    sound("constant in the middle", lambda: shapes.wav(shapes.samples("h", [9000] * COUNT)), "silent"),
    sound("a constant that drifts", lambda: shapes.wav(
        shapes.samples("h", (5000 * index // COUNT for index in range(COUNT)))), "silent"),
    sound("full scale throughout", lambda: shapes.wav(shapes.samples("h", shapes.square(USUAL))), "full_scale"),
    sound("whole numbers in floats", lambda: shapes.wav(
        shapes.samples("f", (9000 * value for value in shapes.tone(USUAL))), tag=3, bits=32), "full_scale"),
    sound("a tone", lambda: shapes.wav(
        shapes.samples("h", (int(32767 * value) for value in shapes.steady(USUAL)))), "steady"),
    sound("plain noise", lambda: shapes.wav(
        shapes.samples("h", (int(32767 * value) for value in shapes.steady(USUAL, noise=True)))), "steady"),
    sound("one click", lambda: shapes.wav(shapes.samples("h", shapes.quiet_but(USUAL, range(5000, 5001)))), "silent"),
    sound("a short beep", lambda: shapes.wav(
        shapes.samples("h", shapes.quiet_but(USUAL, range(5000, 9000)))), "silent"),
    sound("a click in the noise of a recorder", lambda: shapes.wav(shapes.samples("h", (
        value or index * 7919 % 101 - 50 for index, value in enumerate(shapes.quiet_but(USUAL, range(9000, 9400)))))),
        "silent"),
]  # fmt: skip

TEXT = b"parameters\0" + noise(1_500_000).hex().encode()
PICTURES = [
    picture("a workflow of megabytes in text", lambda: shapes.png_with(make.picture(512, 512), (b"tEXt", TEXT))),
    picture("packed text over the limit", lambda: shapes.png_with(
        make.picture(512, 512), (b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)))),
    picture("international text over the limit", lambda: shapes.png_with(
        make.picture(512, 512), (b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)))),
    picture("text over the limit in all", lambda: shapes.png_with(
        make.picture(512, 512), *[(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 1_000_000))] * 70)),
    picture("a color profile over the limit", lambda: shapes.png_with(
        make.picture(512, 512), (b"iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000))))),
    picture("a broken color profile", lambda: shapes.png_with(make.picture(512, 512), (b"iCCP", b"p\0\0broken"))),
    picture("broken EXIF", lambda: shapes.png_with(make.picture(512, 512), (b"eXIf", b"MM\0*\xff\xff\xff\xff"))),
    picture("a thousand chunks", lambda: shapes.png_with(make.picture(512, 512), *[(b"tEXt", b"a\0b")] * 1000)),
    picture("bytes behind the end", lambda: make.picture(512, 512) + noise(5000)),
    picture("PNG without its end", lambda: make.picture(512, 512)[:-12]),
    picture("interlaced", shapes.write_interlaced_png),
    picture("APNG", lambda: shapes.save(shapes.draw(), save_all=True, append_images=[shapes.draw().rotate(90)])),
    picture("black and white", lambda: shapes.save(shapes.draw("1"))),
    picture("gray with transparency", lambda: shapes.save(shapes.draw("LA"))),
    picture("half transparent", lambda: shapes.save(shapes.draw_translucent(128))),
    picture("JPEG for print", lambda: shapes.save(shapes.draw("CMYK"), "JPEG")),
    picture("progressive JPEG", lambda: shapes.save(shapes.draw(), "JPEG", progressive=True)),
    picture("gray JPEG", lambda: shapes.save(shapes.draw("L"), "JPEG")),
    picture("JPEG of two pictures", lambda: shapes.save(
        shapes.draw(), "MPO", save_all=True, append_images=[shapes.draw()])),
    picture("JPEG with EXIF", lambda: jpeg_to_turn(1)),
    picture("JPEG with broken EXIF", lambda: shapes.save(shapes.draw(), "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 4)),
    picture("JPEG with bytes behind the end", lambda: make.picture(512, 512, "JPEG") + noise(5000)),
    picture("WebP with transparency", lambda: shapes.save(shapes.draw_translucent(200), "WEBP")),
    picture("WebP without loss", lambda: shapes.save(shapes.draw(), "WEBP", lossless=True)),
    picture("animated WebP", lambda: shapes.save(
        shapes.draw(), "WEBP", save_all=True, append_images=[shapes.draw().rotate(90)])),
    picture("GIF", lambda: shapes.save(shapes.draw(), "GIF")),
    picture("AVIF", lambda: shapes.save(shapes.draw(), "AVIF"), "", "format"),
    picture("BMP", lambda: shapes.save(shapes.draw(), "BMP"), "", "format"),
    picture("TIFF", lambda: shapes.save(shapes.draw(), "TIFF"), "", "format"),
    picture("TIFF of floats", lambda: shapes.save(
        shapes.draw("F").point(lambda value: value * (1 / 255) + 0), "TIFF"), "", "format"),
    picture("fully transparent", lambda: shapes.save(shapes.draw_translucent(0)), "flat"),
    picture("nearly fully transparent", lambda: shapes.save(shapes.draw_translucent(2)), "flat"),
    picture("fully transparent WebP", lambda: shapes.save(shapes.draw_translucent(0), "WEBP", lossless=True), "flat"),
    picture("gray, fully transparent", lambda: shapes.save(shapes.draw_translucent(0).convert("LA")), "flat"),
    picture("one bright color", lambda: make.flat_picture(512, 512, "orange"), "flat"),
    picture("EXIF cannot turn a wrong size right", lambda: shapes.save(shapes.draw(side=256), "JPEG"), "size"),
    picture("PNG cut off", lambda: make.picture(512, 512)[:-400], "undecodable"),
    picture("JPEG cut off", lambda: make.picture(512, 512, "JPEG")[:5000], "undecodable"),
    picture("SVG", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    Row("text-to-image", "HEIC", lambda: b"\0\0\0\x18ftypheic" + bytes(500), "unsupported", (), Fault.TESTER),
    Row("text-to-image", "JPEG XL", lambda: b"\xff\x0a" + noise(500), "unsupported", (), Fault.TESTER),
]  # fmt: skip

FRAGMENTS = (("movflags", "frag_keyframe+empty_moov+default_base_moof"),)
VIDEOS = [
    video("free before ftyp", lambda: shapes.prepend_to_mp4(make.video(), shapes.box(b"free"))),
    video("skip before ftyp", lambda: shapes.prepend_to_mp4(make.video(), shapes.box(b"skip", bytes(1000)))),
    video("wide before ftyp", lambda: shapes.prepend_to_mp4(make.video(), shapes.box(b"wide"))),
    video("zeros before ftyp", lambda: bytes(8) + make.video()),
    video("free behind the end", lambda: make.video() + shapes.box(b"free", bytes(100))),
    video("zeros behind the end", lambda: make.video() + bytes(1000)),
    video("its index first", lambda: shapes.film(options=(("movflags", "faststart"),))),
    video("in fragments", lambda: shapes.film(options=FRAGMENTS)),
    video(
        "in fragments, styp first", lambda: shapes.box(b"styp", b"msdh\0\0\0\0msdh") + shapes.film(options=FRAGMENTS)
    ),
    video("QuickTime", lambda: shapes.film(form="mov")),
    video("HEVC", lambda: shapes.film("libx265"), "", "codec"),
    video("AV1", lambda: shapes.film("libsvtav1"), "", "codec"),
    video("VP9", lambda: shapes.film("libvpx-vp9"), "", "codec"),
    video("WebM", lambda: shapes.film("libvpx-vp9", "webm"), "", "codec"),
    video("upright, turned by a quarter", lambda: shapes.rotate_mp4(make.video(576, 1024), 90)),
    video("upright, turned by three quarters", lambda: shapes.rotate_mp4(make.video(576, 1024), 270)),
    video("on its head", lambda: shapes.rotate_mp4(make.video(), 180)),
    video("turned to be upright", lambda: shapes.rotate_mp4(make.video(), 90), "size"),
    video("turned to be upright the other way", lambda: shapes.rotate_mp4(make.video(), 270), "size"),
    video("upright, on its head", lambda: shapes.rotate_mp4(make.video(576, 1024), 180), "size"),
    video("turned, but flat", lambda: shapes.rotate_mp4(make.video(576, 1024, flat=True), 90), "flat"),
    video("GIF", lambda: shapes.save(shapes.draw(), "GIF"), "not_a_video"),
    video("AVIF", lambda: shapes.save(shapes.draw(), "AVIF"), "not_a_video"),
    video("AVI", lambda: shapes.film(form="avi"), "not_a_video"),
    video("black WebM", lambda: b"\x1a\x45\xdf\xa3" + b"webm".rjust(40, b"\0"), "undecodable"),
    video("in fragments, cut off", lambda: shapes.film(options=FRAGMENTS)[:9000], "undecodable"),
]

ROWS = [*SOUNDS, *PICTURES, *VIDEOS]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """Yield a real worker, with its limits on memory."""
    shared = Worker.start(wall_s=200)
    yield shared
    shared.stop()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_files_of_real_encoders(worker: Worker, row: Row) -> None:
    """What a player opens is right, what is damaged or shows nothing is wrong, and what is odd is a note."""
    answer = {"audio": {"url": FILE}} if row.pipeline == "text-to-speech" else images()
    files = {FILE: FetchedFile(FILE, 200, row.make_content())}
    task = CheckTask(request(row.pipeline).expectation, json.dumps(answer).encode(), files=files)
    (finding,) = worker.evaluate(task, cpu_s=20).findings
    assert finding.problem == row.problem, finding.message
    assert finding.fault is row.fault
    assert {note.code for note in finding.notes} == set(row.notes)


@pytest.mark.parametrize(
    ("text", "seconds", "problem"),
    [
        ("今天早上面包师在街道还很暗的时候就开了店门。", 5.3, ""),
        ("今天早上面包师在街道还很暗的时候就开了店门。", 1.0, "duration"),
        ("今天早上面包师在街道还很暗的时候就开了店门。", 20.0, "duration"),
        ("赤いボールが緑の草の上に置いてあります。", 4.0, ""),
        ("푸른 잔디 위에 빨간 공이 놓여 있습니다.", 4.0, ""),
        ("красный мяч лежит на зелёной траве", 2.4, ""),
    ],
)
def test_speech_lasts_as_long_as_its_script_takes(worker: Worker, text: str, seconds: float, problem: str) -> None:
    """A character that is a syllable takes longer to say than a letter."""
    sent = request("text-to-speech").expectation
    files = {FILE: FetchedFile(FILE, 200, make.sound(seconds))}
    expectation = replace(sent, parameters={**sent.parameters, "text": text})
    task = CheckTask(expectation, json.dumps({"audio": {"url": FILE}}).encode(), files=files)
    (finding,) = worker.evaluate(task, cpu_s=20).findings
    assert finding.problem == problem, finding.message


def evaluate_inline_answer(pipeline: str, answer: Any) -> Finding:
    """Return the finding on an answer that names no file."""
    task = CheckTask(request(pipeline).expectation, json.dumps(answer).encode())
    report = evaluate(task)
    assert not report.urls
    return report.findings[0]


MASKS: dict[str, Any] = {
    "true and false": {"masks": [[[value > 0 for value in row] for row in mask()]]},
    "true and false as Python writes them": {"masks": str([[[value > 0 for value in row] for row in mask()]])},
    "255 and 0": {"masks": [[[255 * int(value) for value in row] for row in mask()]]},
    "a score a little below nothing": {"scores": [-0.01]},
    "a byte order mark before the text": {"masks": "\ufeff" + json.dumps([mask()])},
    "a null character before the text": {"masks": "\0" + json.dumps([mask()])},
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_other_servers(name: str) -> None:
    """A mask is a mask, whatever its server writes for true and false."""
    assert evaluate_inline_answer("segment-anything-2", masks(**MASKS[name])).passed


def test_masks_as_booleans_are_json_too() -> None:
    """Booleans in lists as such, not as a text."""
    answer = {key: json.loads(value) for key, value in masks(**MASKS["true and false"]).items()}
    assert evaluate_inline_answer("segment-anything-2", answer).passed


def test_masks_each_as_a_text_of_its_own() -> None:
    """A list of texts, one for each mask."""
    answer = {**masks(), "masks": [json.dumps(mask())], "scores": "[0.9]"}
    assert evaluate_inline_answer("segment-anything-2", answer).passed


def test_the_mask_with_the_highest_score_counts() -> None:
    """Scores in another order are a note, and the best mask is checked wherever it is."""
    sent = request("segment-anything-2").expectation
    several = replace(sent, parameters={**sent.parameters, "multimask_output": "true"})
    answer = masks(scores=[0.2, 0.9], masks=[[[0.0] * 256] * 256, mask()], logits=[[[0.0] * 256] * 256] * 2)
    (finding,) = evaluate(CheckTask(several, json.dumps(answer).encode())).findings
    assert finding.passed, finding.message
    assert [note.code for note in finding.notes] == ["unsorted"]


def encode_input(name: str, side: int, form: str, **options: Any) -> bytes:
    """Return a test input encoded again, each pixel repeated to fill another size."""
    with Image.open(builtin_folder() / name) as sent:
        return shapes.save(sent.resize((side, side), Image.Resampling.NEAREST), form, **options)


@pytest.mark.parametrize(
    "error",
    [
        av.error.PatchWelcomeError(0, "Not yet implemented in FFmpeg, patches welcome"),
        av.error.DecoderNotFoundError(0, "Decoder not found"),
        av.error.NotImplementedError(78, "Function not implemented"),
        av.error.ExperimentalError(0, "Experimental feature"),
        NotImplementedError("not this form"),
    ],
    ids=lambda error: type(error).__module__ + type(error).__name__,
)
def test_what_a_decoder_does_not_support_is_the_testers_limit(error: Exception) -> None:
    """Other players may open the file, so its author is not blamed."""
    with pytest.raises(CheckFailedError) as caught, decoding("sound", b"x"):
        raise error
    assert (caught.value.problem, caught.value.fault) == ("unsupported", Fault.TESTER)


def test_a_damaged_file_is_the_orchestrators_fault() -> None:
    """Damage is in the file itself."""
    with pytest.raises(CheckFailedError) as caught, decoding("sound", b"x"):
        raise av.error.InvalidDataError(0, "Invalid data found when processing input")
    assert (caught.value.problem, caught.value.fault) == ("undecodable", Fault.ORCHESTRATOR)


def test_a_custom_pipeline_may_return_its_input(worker: Worker) -> None:
    """A filter that finds nothing to do is right; only pipelines that ask for a changed picture refuse the one sent."""
    sent = request("image-to-image").expectation
    checks = tuple(replace(check, params=replace(check.params, changed=False)) for check in sent.checks)
    files = {FILE: FetchedFile(FILE, 200, encode_input("image.png", 512, "PNG"))}
    task = CheckTask(replace(sent, checks=checks), json.dumps(images()).encode(), files=files)
    (finding,) = worker.evaluate(task, cpu_s=20).findings
    assert finding.passed, finding.message


@pytest.mark.parametrize(
    ("pipeline", "name", "side", "form"),
    [
        ("image-to-image", "image.png", 512, "PNG"),
        ("image-to-image", "image.png", 512, "BMP"),
        ("upscale", "small.png", 1024, "PNG"),
    ],
)
def test_the_input_is_no_answer(worker: Worker, pipeline: str, name: str, side: int, form: str) -> None:
    """The picture that was sent, however it is written, is not what was asked for."""
    files = {FILE: FetchedFile(FILE, 200, encode_input(name, side, form))}
    task = CheckTask(request(pipeline).expectation, json.dumps(images()).encode(), files=files)
    (finding,) = worker.evaluate(task, cpu_s=20).findings
    assert finding.problem == "unchanged"


@pytest.mark.parametrize(
    ("pipeline", "name", "side"), [("image-to-image", "image.png", 512), ("upscale", "small.png", 1024)]
)
def test_what_resembles_the_input_passes(worker: Worker, pipeline: str, name: str, side: int) -> None:
    """A model may change little: what is not the very same is an answer."""
    files = {FILE: FetchedFile(FILE, 200, encode_input(name, side, "JPEG", quality=95))}
    task = CheckTask(request(pipeline).expectation, json.dumps(images()).encode(), files=files)
    assert worker.evaluate(task, cpu_s=20).findings[0].passed


def test_a_picture_over_the_limit_is_the_testers_fault_if_no_size_is_expected(worker: Worker) -> None:
    """Nobody said how large it may be, and 25 million pixels are not absurd: that limit is the tester's."""
    expectation = Expectation((Check("json", json_field.Params(path="url", is_="image")),))
    files = {"/x": FetchedFile("/x", 200, make.png_bomb(5000))}
    (finding,) = worker.evaluate(CheckTask(expectation, b'{"url":"/x"}', files=files), cpu_s=20).findings
    assert (finding.problem, finding.fault) == ("too_large", Fault.TESTER)


@pytest.mark.parametrize("every", [True, False])
def test_masks_of_one_boolean_show_nothing(every: bool) -> None:
    """All true and all false outline nothing."""
    finding = evaluate_inline_answer("segment-anything-2", masks(masks=[[[every] * 256] * 256]))
    assert finding.problem == "flat"


@pytest.mark.parametrize("change", [lambda text: text.rstrip("="), lambda text: text.translate({43: "-", 47: "_"})])
def test_base64_of_other_encoders(change: Callable[[str], str]) -> None:
    """Base64 without padding, or in the alphabet for addresses, is read."""
    text = base64.b64encode(make.picture(1024, 1024) + os.urandom(1)).decode()
    assert evaluate_inline_answer("openai-image-generation", {"data": [{"b64_json": change(text)}]}).passed
