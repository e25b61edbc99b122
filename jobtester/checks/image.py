"""`image`: the answer lists pictures that decode fully, have the asked size and show something."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from jobtester.checks.base import AssetMetadata, CheckFailedError, CheckInput, Expectation
from jobtester.checks.image_metadata import is_rotated, strip_metadata
from jobtester.checks.media import decoding, entry_content, entry_urls, find_entries
from jobtester.checks.untrusted_json import shorten
from jobtester.domain.reasons import Fault

if TYPE_CHECKING:
    from PIL.Image import Image

_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n", 0),
    "JPEG": (b"\xff\xd8\xff", 0),
    "WEBP": (b"WEBP", 8),
    "GIF": (b"GIF8", 0),
    "AVIF": (b"ftypavi", 4),
    "BMP": (b"BM", 0),
    "TIFF": (b"II*\0", 0),
    "TIFF ": (b"MM\0*", 0),
}
_UNREADABLE = {  # what some browsers show and nothing here can decode: nobody's fault but the tester's
    "HEIC": (b"ftyphei", 4),
    "HEIF": (b"ftypmif1", 4),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n", 0),
    "JPEG XL ": (b"\xff\x0a", 0),
}
MAX_PIXELS = 4096 * 4096
FLAT = 2.0  # standard deviation, of 255, below which nobody sees anything
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_SEEN = 4  # of 255: alpha up to which nothing is seen
_LOOK = 512  # side, in pixels, to which a picture is brought before its colours are compared


@dataclass(frozen=True, slots=True)
class Params:
    """`path` leads to the list of pictures.

    `size` is `asked` (parameters width and height, or size), `input` (that of the picture sent, times `scale`, each
    side rounded down to a multiple of `multiple`), `any`, or such as "512x512". `seed` wants the asked seed echoed.
    `changed` refuses the picture that was sent: for pipelines whose task always changes it.
    """

    path: str = "images"
    size: str = "asked"
    scale: int = 1
    multiple: int = 1
    seed: bool = False
    changed: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no picture can meet."""
        if self.size not in ("asked", "input", "any") and _parsed(self.size) is None:
            raise ValueError('size is "asked", "input", "any", or such as "512x512"')
        if self.scale < 1 or self.multiple < 1:
            raise ValueError("scale and multiple are at least 1")


def missing_inputs(params: Params, expectation: Expectation) -> str:
    """Say what has to be known of the request for the size to be checked."""
    if params.size == "asked" and expectation.requested_size is None:
        return 'size = "asked" needs the parameters width and height, or size; or write size = "any"'
    if params.size == "input" and expectation.sent_picture is None:
        return 'size = "input" needs a picture among the files'
    return ""


def file_urls(answer: Any, params: Params) -> list[str]:
    """Give the addresses of the pictures."""
    return entry_urls(answer, params.path)


def load_decoders() -> None:
    """Load the decoders."""
    from PIL import Image, ImageStat  # noqa: F401

    Image.preinit()


def check(sample: CheckInput, params: Params) -> None:
    """Look at every picture. Raises CheckFailedError for the first thing that is not right."""
    expected = sample.expectation
    listed = find_entries(sample.answer, params.path)
    count = int(expected.find_number("num_images_per_prompt", "n") or 1)
    if len(listed) != count:
        raise CheckFailedError("count", f"{len(listed)} pictures came, {count} asked for")
    size = _expected_size(expected, params)
    for index, entry in enumerate(listed):
        if params.seed:
            _check_seed(entry, expected, index)
        picture = decode_image(entry_content(sample, entry, params.path), size)
        if params.changed:
            _check_changed(picture, expected.sent_picture, params.scale)
        if picture.format not in ("PNG", "JPEG", "MPO", "WEBP", "GIF"):
            sample.notes.add("format", f"the picture is written as {picture.format}, which not all viewers open")
        colour = flat_color(picture)
        if colour:
            raise CheckFailedError("flat", f"the picture of {_show(picture.size)} is one flat colour, {colour}")


def decode_image(content: bytes, size: tuple[int, int] | None = None, *, larger: Fault = Fault.ORCHESTRATOR) -> Image:
    """Decode a picture fully; its header is believed only within bounds and, where given, only if it says `size`.

    `larger` is at whose door a picture lies that is larger than we decode, but not absurdly so: where nobody knows what
    size is right, the limit is the tester's.
    """
    from PIL import Image

    formats = [name.strip() for name in _named(content, _SIGNATURES)]
    if not formats:
        _refuse(content)
    with decoding("picture", content), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(io.BytesIO(strip_metadata(content)), formats=formats)
        if size is not None and picture.size != size and not (picture.size == size[::-1] and is_rotated(content)):
            raise CheckFailedError("size", f"the picture is {_show(picture.size)}, not {_show(size)}")
        if picture.width * picture.height > MAX_PIXELS:
            raise CheckFailedError("too_large", f"the picture claims to be {_show(picture.size)}", larger)
        picture.load()
        return picture


def pixel_digest(picture: Image) -> str:
    """Return the SHA-256 of a picture's RGB values."""
    return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


def _check_changed(picture: Image, sent: AssetMetadata | None, scale: int) -> None:
    """Refuse the picture that was sent, pixel by pixel, or that with each pixel repeated: nothing was done to it."""
    if sent is None or not sent.pixels or picture.size != (sent.width * scale, sent.height * scale):
        return
    plain = picture.convert("RGB")
    if pixel_digest(plain.reduce(scale) if scale > 1 else plain) == sent.pixels:
        raise CheckFailedError(
            "unchanged", "the picture is the one that was sent; nothing was done but to repeat its pixels"
        )


def _named(content: bytes, signatures: Mapping[str, tuple[bytes, int]]) -> list[str]:
    return [name for name, (sign, at) in signatures.items() if content[at : at + len(sign)] == sign]


def _refuse(content: bytes) -> NoReturn:
    for name in _named(content, _UNREADABLE):
        raise CheckFailedError(
            "unsupported", f"the tester cannot decode {name.strip()}, so nothing is said of it", Fault.TESTER
        )
    raise CheckFailedError(
        "not_an_image", f"the file is no PNG, JPEG, WebP or GIF, nor any other picture: it begins with {content[:12]!r}"
    )


def flat_color(picture: Image) -> str:
    """Name the color of a picture that shows nothing but that, as #rrggbb; empty for any other.

    A transparent picture shows what is on black or on white; where it is flat on both, nobody sees anything.
    """
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":  # more than 8 bits of gray, cut off by a conversion
        picture = _in_8_bits(picture)
    factor = max(1, max(picture.size) // _LOOK)
    if not picture.has_transparency_data:
        plain = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
        return _only_color(plain.reduce(factor).convert("RGB"))
    small = picture.convert("RGBA").reduce(factor)
    shown = ""
    for ground in ("white", "black"):
        whole = Image.new("RGBA", small.size, ground)
        whole.alpha_composite(small)
        shown = _only_color(whole.convert("RGB"))
        if not shown:
            return ""
    highest = small.getchannel("A").getextrema()[1]
    return shown if isinstance(highest, int) and highest > _SEEN else "transparent"


def _in_8_bits(picture: Image) -> Image:
    """Bring 16 bits of gray, or floats from 0 to 1, to 8 bits."""
    wide = picture.convert("F")
    highest: Any = wide.getextrema()[1]
    scale = 1 / 256 if picture.mode != "F" else 255.0 if highest <= 1 else 1.0
    return wide.point(lambda value: value * scale + 0).convert("L")


def _only_color(picture: Image) -> str:
    from PIL import ImageStat

    look = ImageStat.Stat(picture)
    return f"#{bytes(map(round, look.mean)).hex()}" if max(look.stddev) < FLAT else ""


def _expected_size(expected: Expectation, params: Params) -> tuple[int, int] | None:
    match params.size:
        case "any":
            return None
        case "asked":
            return expected.requested_size
        case "input":
            sent = expected.sent_picture
            if sent is None:
                return None
            width, height = (side * params.scale // params.multiple for side in (sent.width, sent.height))
            return width * params.multiple, height * params.multiple
        case other:
            return _parsed(other)


def _check_seed(entry: Any, expected: Expectation, index: int) -> None:
    asked = expected.find_number("seed")
    came = entry.get("seed") if isinstance(entry, dict) else None
    number = int(came) if isinstance(came, str) and _WHOLE.fullmatch(came) else came
    if asked is not None and number not in (asked, asked + index):
        raise CheckFailedError("seed", f"the seed {asked:g} was asked for, the answer says {shorten(came, 40)}")


def _parsed(size: str) -> tuple[int, int] | None:
    width, _, height = size.partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None


def _show(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
