"""`image`: the answer lists pictures that decode fully, have the asked size and show something."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobtester.pipelines.checks import media, paths
from jobtester.pipelines.checks.sample import Expectation, Sample, Wrong

if TYPE_CHECKING:
    from PIL.Image import Image

_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n", 0),
    "JPEG": (b"\xff\xd8\xff", 0),
    "WEBP": (b"WEBP", 8),
    "GIF": (b"GIF8", 0),
}
MAX_PIXELS = 4096 * 4096
FLAT = 2.0  # standard deviation, of 255, below which nobody sees anything
_LOOK = 512  # side, in pixels, to which a picture is brought before its colours are compared


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the list of pictures.

    `size` is `asked` (parameters width and height, or size), `input` (that of the picture sent, times `scale`, each
    side rounded down to a multiple of `multiple`), `any`, or such as "512x512". `seed` wants the asked seed echoed.
    """

    path: str = "images"
    size: str = "asked"
    scale: int = 1
    multiple: int = 1
    seed: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no picture can meet."""
        if self.size not in ("asked", "input", "any") and _parsed(self.size) is None:
            raise ValueError('size is "asked", "input", "any", or such as "512x512"')
        if self.scale < 1 or self.multiple < 1:
            raise ValueError("scale and multiple are at least 1")


def needs(params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the request for the size to be checked."""
    if params.size == "asked" and expectation.asked_size is None:
        return 'size = "asked" needs the parameters width and height, or size; or write size = "any"'
    if params.size == "input" and expectation.picture() is None:
        return 'size = "input" needs a picture among the files'
    return ""


def urls(answer: Any, params: Params) -> list[str]:
    """Give the addresses of the pictures."""
    return media.urls(answer, params.path)


def prepare() -> None:
    """Load the decoders."""
    from PIL import Image, ImageStat  # noqa: F401

    Image.preinit()


def check(sample: Sample, params: Params) -> None:
    """Look at every picture. Raises Wrong for the first thing that is not right."""
    expected = sample.expectation
    listed = media.entries(sample.answer, params.path)
    count = int(expected.number("num_images_per_prompt", "n") or 1)
    if len(listed) != count:
        raise Wrong("count", f"{len(listed)} pictures came, {count} asked for")
    size = _expected_size(expected, params)
    for index, entry in enumerate(listed):
        if params.seed:
            _check_seed(entry, expected, index)
        picture = decode(media.content(sample, entry, params.path), size)
        colour = flat(picture)
        if colour:
            raise Wrong("flat", f"the picture of {_show(picture.size)} is one flat colour, {colour}")


def decode(content: bytes, size: tuple[int, int] | None = None) -> Image:
    """Decode a picture fully; its header is believed only within bounds and, where given, only if it says `size`."""
    from PIL import Image

    formats = [name for name, (sign, at) in _SIGNATURES.items() if content[at : at + len(sign)] == sign]
    if not formats:
        raise Wrong("not_an_image", f"the file is no PNG, JPEG, WebP or GIF: it begins with {content[:12]!r}")
    with media.decoding("picture", content), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(io.BytesIO(content), formats=formats)
        if size is not None and picture.size != size:
            raise Wrong("size", f"the picture is {_show(picture.size)}, not {_show(size)}")
        if picture.width * picture.height > MAX_PIXELS:
            raise Wrong("too_large", f"the picture claims to be {_show(picture.size)}")
        picture.load()
        return picture


def flat(picture: Image) -> str:
    """Name the colour of a picture that shows nothing but that, as #rrggbb; empty for any other."""
    from PIL import ImageStat

    if picture.mode.startswith("I"):  # 16 bits of grey, of which conversion would cut off what is above 255
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    factor = max(1, max(picture.size) // _LOOK)
    plain = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")
    small = plain.reduce(factor).convert("RGB")
    look = ImageStat.Stat(small)
    return f"#{bytes(map(round, look.mean)).hex()}" if max(look.stddev) < FLAT else ""


def _expected_size(expected: Expectation, params: Params) -> tuple[int, int] | None:
    match params.size:
        case "any":
            return None
        case "asked":
            return expected.asked_size
        case "input":
            sent = expected.picture()
            if sent is None:
                return None
            width, height = (side * params.scale // params.multiple for side in (sent.width, sent.height))
            return width * params.multiple, height * params.multiple
        case other:
            return _parsed(other)


def _check_seed(entry: Any, expected: Expectation, index: int) -> None:
    asked = expected.number("seed")
    came = entry.get("seed") if isinstance(entry, dict) else None
    if asked is not None and came not in (asked, asked + index):
        raise Wrong("seed", f"the seed {asked:g} was asked for, the answer says {paths.show(came, 40)}")


def _parsed(size: str) -> tuple[int, int] | None:
    width, _, height = size.partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None


def _show(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
