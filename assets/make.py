"""Make the test inputs and write down their truth: `python assets/make.py`.

The picture is drawn with Pillow. The speech needs `espeak-ng` on the path (Debian: apt-get install espeak-ng); without
it the committed speech.wav is kept. The files are committed, since other versions of either may give other bytes.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any

import av
import tomli_w
from av.audio.resampler import AudioResampler
from PIL import Image, ImageChops, ImageDraw, ImageFilter

HERE = Path(__file__).parent
SENTENCE = "A red ball lies on the green grass. The sun is shining and there are no clouds in the sky today."
CAPTION_WORDS = ["ball", "red", "sphere", "orb", "circle", "apple", "tomato", "cherry", "balloon", "grass", "sun"]
SAMPLE_RATE = 16_000
FINE = 4  # drawn this many times larger, then scaled down: smooth edges

# Where things are, in parts of the picture's side.
HORIZON = 0.58
SUN = (0.80, 0.20, 0.075)
BALL = (0.42, 0.625, 0.1875)

Color = tuple[int, int, int]


def picture(side: int) -> Image.Image:
    """Draw a red ball on a green meadow under a blue sky, `side` pixels square."""
    large = side * FINE
    scene = _gradient(large, top=(64, 130, 214), bottom=(196, 224, 246))
    meadow = _gradient(large, top=(116, 176, 72), bottom=(44, 104, 36))
    ground = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(ground)
    pen.rectangle((0, HORIZON * large, large, large), fill=255)
    pen.ellipse(_round(large, 0.15, HORIZON + 0.12, 0.45, 0.22), fill=255)
    scene.paste(meadow, (0, 0), ground)
    ImageDraw.Draw(scene).ellipse(_round(large, *SUN), fill=(255, 224, 92))
    scene.paste((22, 62, 22), (0, 0), _shadow(large))
    scene.paste(_ball(large), (0, 0), _disc(large, *BALL))
    return scene.resize((side, side), Image.Resampling.LANCZOS)


def ball_box(side: int) -> list[int]:
    """Return the ball's box [x1, y1, x2, y2] in pixels."""
    return [round(part * side) for part in _round(1, *BALL)]


def speech() -> bytes | None:
    """Speak the sentence: a WAV, 16 kHz mono 16-bit, with a short silence around it; None without espeak-ng."""
    if shutil.which("espeak-ng") is None:
        return None
    spoken = subprocess.run(
        ["espeak-ng", "-v", "en-us", "-s", "150", "--stdout", SENTENCE], check=True, capture_output=True
    ).stdout
    resampler = AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    pause = bytes(SAMPLE_RATE // 4 * 2)
    samples = bytearray(pause)
    with av.open(io.BytesIO(spoken)) as container:
        for frame in container.decode(audio=0):
            samples += b"".join(bytes(part.planes[0])[: part.samples * 2] for part in resampler.resample(frame))
    samples += pause
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(bytes(samples))
    return out.getvalue()


def main() -> None:
    """Write every file and truth.toml."""
    truth: dict[str, dict[str, Any]] = {}
    for name, side in (("image.png", 512), ("small.png", 256)):
        drawn = io.BytesIO()
        picture(side).save(drawn, "PNG", optimize=True)
        (HERE / name).write_bytes(drawn.getvalue())
        truth[name] = {
            "pixels": hashlib.sha256(picture(side).convert("RGB").tobytes()).hexdigest(),
            "width": side,
            "height": side,
            "caption_words": CAPTION_WORDS,
            "object": "red ball",
            "box": ball_box(side),
            "point": [round(BALL[0] * side), round(BALL[1] * side)],
        }
    spoken = speech()
    if spoken is not None:
        (HERE / "speech.wav").write_bytes(spoken)
    with wave.open(str(HERE / "speech.wav")) as file:
        duration = file.getnframes() / file.getframerate()
    truth["speech.wav"] = {"transcript": SENTENCE, "duration_s": round(duration, 3)}
    for name, facts in truth.items():
        facts["sha256"] = hashlib.sha256((HERE / name).read_bytes()).hexdigest()
        print(name, facts)
    heading = "# What is true of each test input. Written by make.py.\n\n"
    (HERE / "truth.toml").write_text(heading + tomli_w.dumps({"files": truth}), "utf-8")


def _gradient(side: int, *, top: Color, bottom: Color) -> Image.Image:
    column = Image.linear_gradient("L").resize((side, side))
    return Image.composite(Image.new("RGB", (side, side), bottom), Image.new("RGB", (side, side), top), column)


def _round(side: int, x: float, y: float, width: float, height: float | None = None) -> tuple[float, ...]:
    """Return the box of an ellipse from its center and half axes."""
    high = width if height is None else height
    return ((x - width) * side, (y - high) * side, (x + width) * side, (y + high) * side)


def _disc(side: int, x: float, y: float, radius: float) -> Image.Image:
    disc = Image.new("L", (side, side), 0)
    ImageDraw.Draw(disc).ellipse(_round(side, x, y, radius), fill=255)
    return disc


def _shadow(side: int) -> Image.Image:
    x, y, radius = BALL
    shade = Image.new("L", (side, side), 0)
    ImageDraw.Draw(shade).ellipse(_round(side, x + 0.03, y + radius * 0.94, radius * 1.05, radius * 0.28), fill=170)
    return shade.filter(ImageFilter.GaussianBlur(side * 0.01))


def _ball(side: int) -> Image.Image:
    """Shade the ball: bright where the light falls, dark at the far edge."""
    x, y, radius = BALL
    extent = round(radius * 3.2 * side)
    light = ImageChops.invert(Image.radial_gradient("L")).resize((extent, extent))
    glow = Image.new("L", (side, side), 0)
    glow.paste(light, (round((x + radius * 0.3) * side) - extent // 2, round((y - radius * 0.4) * side) - extent // 2))
    bright, dark = Image.new("RGB", (side, side), (255, 84, 66)), Image.new("RGB", (side, side), (120, 8, 14))
    return Image.composite(bright, dark, glow)


if __name__ == "__main__":
    main()
