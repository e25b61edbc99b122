"""Test inputs are what their truth says: a bad one would be charged to the orchestrators."""

from __future__ import annotations

import hashlib
import io
import runpy
import shutil
import tomllib
import wave
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobtester.errors import AssetError
from jobtester.pipelines.assets import MAX_SIZE, Assets, builtin_folder
from jobtester.pipelines.catalogue import load_catalogue
from tests.unit.corpus import media_factory as make

FOLDER = builtin_folder()
TRUTH: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / "truth.toml").read_text("utf-8"))["files"]
PICTURES = ["image.png", "small.png"]


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    """Return what make.py defines."""
    return runpy.run_path(str(FOLDER / "make.py"))


def test_every_file_has_its_truth() -> None:
    """truth.toml describes every input in the folder, byte for byte, and nothing else."""
    inputs = {path.name for path in FOLDER.iterdir() if path.suffix not in (".md", ".toml", ".py") and path.is_file()}
    assert set(TRUTH) == inputs
    for name, facts in TRUTH.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == facts["sha256"]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_what_make_draws(name: str, maker: dict[str, Any]) -> None:
    """The committed picture is the one that make.py draws, pixel by pixel."""
    committed = Image.open(FOLDER / name)
    assert committed.format == "PNG"
    assert committed.size == (TRUTH[name]["width"], TRUTH[name]["height"])
    assert committed.tobytes() == maker["picture"](committed.width).tobytes()


@pytest.mark.parametrize("name", PICTURES)
def test_the_box_holds_the_ball(name: str) -> None:
    """The known box is the box of everything red in the picture, to the pixel."""
    picture = Image.open(FOLDER / name).convert("RGB")
    red, green, blue = picture.split()
    others = Image.merge("RGB", (green, blue, green)).convert("L")
    mask = Image.new("1", picture.size)
    mask.putdata([r > 1.6 * max(g, b) for r, g, b in zip(red.tobytes(), green.tobytes(), blue.tobytes(), strict=True)])
    assert others.size == mask.size
    box = mask.getbbox()
    assert box is not None
    assert all(abs(a - b) <= 1 for a, b in zip(box, TRUTH[name]["box"], strict=True))
    left, top, right, bottom = TRUTH[name]["box"]
    x, y = TRUTH[name]["point"]
    assert left < x < right
    assert top < y < bottom


def test_the_speech_is_as_long_as_it_says(maker: dict[str, Any]) -> None:
    """The speech is 16 kHz mono 16-bit of a few seconds, and its transcript is the sentence that was spoken."""
    with wave.open(str(FOLDER / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        seconds = file.getnframes() / file.getframerate()
    truth = TRUTH["speech.wav"]
    assert abs(seconds - truth["duration_s"]) < 0.001
    assert 5 <= seconds <= 8
    assert truth["transcript"] == maker["SENTENCE"]


def test_every_built_in_pipelines_inputs_are_shipped() -> None:
    """The files that the built-in pipelines send are there, and small enough for every runner."""
    assets = Assets()
    for definition in load_catalogue({}, assets).values():
        for name in definition.files.values():
            asset = assets.get(name)
            assert 0 < len(asset.content) < 2**20


def test_a_folder_of_ones_own_comes_first(tmp_path: Path) -> None:
    """A file in the given folder is used instead of the shipped one; the others stay available."""
    own = make.picture(64, 48)
    (tmp_path / "image.png").write_bytes(own)
    assets = Assets(tmp_path)
    assert assets.get("image.png").content == own
    assert (assets.get("image.png").metadata.width, assets.get("image.png").metadata.height) == (64, 48)
    assert assets.get("speech.wav").metadata.transcript


def test_own_truth_is_taken_over(tmp_path: Path) -> None:
    """What a truth.toml beside the file says is known of it, together with what the file itself shows."""
    (tmp_path / "hello.flac").write_bytes(make.sound(2.0, "flac"))
    (tmp_path / "truth.toml").write_text('[files."hello.flac"]\ntranscript = "Hello."\n')
    truth = Assets(str(tmp_path)).get("hello.flac").metadata
    assert truth.transcript == "Hello."
    assert abs(truth.duration_s - 2.0) < 0.1


def test_files_of_other_kinds_are_sent_as_they_are(tmp_path: Path) -> None:
    """A pipeline of one's own may need anything: what is no picture and no sound is only read."""
    (tmp_path / "scene.glb").write_bytes(b"glTF")
    assert Assets(tmp_path).get("scene.glb").content == b"glTF"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "is empty; put the file back"),
        ("a.png", b"no picture", "the file is not PNG, JPEG, WebP, GIF"),
        ("a.png", make.picture(64, 64)[:200], "cannot be decoded"),
        ("a.png", make.picture(64, 64, "WEBP"), "is WEBP; gateways take PNG, JPEG and GIF only"),
        ("a.png", make.huge_png(100_000, 100_000), "cannot be decoded"),
        ("a.webp", make.picture(64, 64, "WEBP"), "gateways take PNG, JPEG and GIF only; convert it"),
        ("a.bmp", make.picture(64, 64, "BMP"), "gateways take PNG, JPEG and GIF only; convert it"),
        ("a.wav", b"RIFF....WAVE", "cannot be decoded"),
        ("a.wav", make.sound(0.5), "lasts 0.50 s; gateways take nothing below 1 s"),
        ("a.mp3", b"<html>", "the file is not WAV, MP3, FLAC, Ogg"),
        ("a.mp4", make.sound(2.0, "mp4"), "gateways are safe with WAV, FLAC and MP3 only; convert it"),
        ("a.m4a", b"anything", "gateways are safe with WAV, FLAC and MP3 only; convert it"),
    ],
)
def test_bad_inputs_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A file that a gateway or runner cannot process is named before anything is sent, with what to do."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AssetError) as caught:
        Assets(tmp_path).get(name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("not toml", "truth.toml: cannot be read"),
        ('[files."a.png"]\nwidht = 3', 'truth.toml: files."a.png".widht: no such key'),
        ('[files."a.png"]\nwidth = "wide"', 'truth.toml: files."a.png".width: '),
        ('[files."a.png"]\nwidth = 65', "a.png: width is 64, truth.toml says 65; correct truth.toml"),
        ('[files."a.png"]\nsha256 = "00"', "a.png: is not the file that truth.toml beside it describes"),
        ("files = 3", "truth.toml: files has to be a table"),
        ('[files]\n"a.png" = 3', 'truth.toml: files."a.png" has to be a table'),
    ],
)
def test_a_wrong_truth_is_refused(tmp_path: Path, truth: str, message: str) -> None:
    """A truth that is not true would fail right answers."""
    (tmp_path / "a.png").write_bytes(make.picture(64, 64))
    (tmp_path / "truth.toml").write_text(truth)
    with pytest.raises(AssetError) as caught:
        Assets(tmp_path).get("a.png")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../image.png", "a/../../b.png"])
def test_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    """A name cannot lead out of the folder."""
    with pytest.raises(AssetError, match="inside the assets folder"):
        Assets(tmp_path).get(name)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """Both folders are named."""
    with pytest.raises(AssetError) as caught:
        Assets(tmp_path).get("no.png")
    assert str(caught.value) == f"no.png: no such file; looked in {tmp_path} and {FOLDER}"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """Runners refuse more than 50 MiB, so it is not sent to them."""
    with (tmp_path / "long.wav").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    with pytest.raises(AssetError, match="larger than 50 MiB"):
        Assets(tmp_path).get("long.wav")


def test_a_damaged_copy_of_a_shipped_file_is_refused(tmp_path: Path) -> None:
    """A copied folder with one bit changed is noticed by the hash, before it costs anybody a score."""
    shutil.copytree(FOLDER, tmp_path / "copy")
    content = bytearray((FOLDER / "small.png").read_bytes())
    content[-30] ^= 1
    (tmp_path / "copy" / "small.png").write_bytes(content)
    assets = Assets(tmp_path / "copy")
    with pytest.raises(AssetError, match=r"is not the file that truth\.toml beside it describes"):
        assets.get("small.png")
    assert Image.open(io.BytesIO(assets.get("image.png").content)).size == (512, 512)
