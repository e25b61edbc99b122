"""`image`: the answer lists pictures that decode fully, have the requested size and are not blank."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
_UNSUPPORTED = {  # that some browsers show and nothing here can decode: the tester's fault, not the file's
    "HEIC": (b"ftyphei", 4),
    "HEIF": (b"ftypmif1", 4),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n", 0),
    "JPEG XL ": (b"\xff\x0a", 0),
}
_USUAL_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF")
MAX_PIXELS = 4096 * 4096  # which take 64 MiB in RGBA, well within the memory limit of a worker
FLAT_DEVIATION = 2.0  # of 255, below which nobody sees anything
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_MAX_INVISIBLE_ALPHA = 4  # of 255
_COMPARED_SIDE = 512  # pixels, to which a picture is reduced before its colors are compared: enough, and quick


@dataclass(frozen=True, slots=True)
class Params:
    """`path` is the path of the list of pictures.

    `size` is `asked` (parameters width and height, or size), `input` (the input's size times `scale`, each side rounded
    down to a multiple of `multiple`), `any`, or a size such as "512x512". `seed` requires the requested seed in the
    answer. `changed` rejects the unchanged input picture.
    """

    path: str = "images"
    size: str = "asked"
    scale: int = 1
    multiple: int = 1
    seed: bool = False
    changed: bool = False

    def __post_init__(self) -> None:
        if self.size not in ("asked", "input", "any") and _parse_size(self.size) is None:
            raise ValueError('size is "asked", "input", "any", or such as "512x512"')
        if self.scale < 1 or self.multiple < 1:
            raise ValueError("scale and multiple are at least 1")


def missing_inputs(params: Params, expectation: Expectation) -> str:
    """Return what the check would have to know of the request and does not, empty if nothing."""
    if params.size == "asked" and expectation.requested_size is None:
        return 'size = "asked" needs the parameters width and height, or size; or write size = "any"'
    if params.size == "input" and expectation.sent_picture is None:
        return 'size = "input" needs a picture among the files'
    return ""


def file_urls(answer: Any, params: Params) -> list[str]:
    """Return the addresses of the pictures."""
    return entry_urls(answer, params.path)


def load_decoders() -> None:
    """Load the decoders."""
    from PIL import Image, ImageStat  # noqa: F401

    Image.preinit()


def check(sample: CheckInput, params: Params) -> None:
    """Check every picture. Raises CheckFailedError for the first thing that is wrong."""
    expected = sample.expectation
    entries = find_entries(sample.answer, params.path)
    count = int(expected.find_number("num_images_per_prompt", "n") or 1)
    if len(entries) != count:
        raise CheckFailedError("count", f"the answer has {len(entries)} pictures, {count} requested")
    size = _expected_size(expected, params)
    for index, entry in enumerate(entries):
        if params.seed:
            _check_seed(entry, expected, index)
        picture = decode_image(entry_content(sample, entry, params.path), size)
        if params.changed:
            _check_changed(picture, expected.sent_picture, params.scale)
        if picture.format not in _USUAL_FORMATS:
            sample.notes.add("format", f"the picture is written as {picture.format}, which not all viewers open")
        color = flat_color(picture)
        if color:
            raise CheckFailedError("flat", f"the picture of {_format_size(picture.size)} is one flat color, {color}")


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
            # Models that work on blocks of pixels round down before they scale back up.
            width, height = (side * params.scale // params.multiple for side in (sent.width, sent.height))
            return width * params.multiple, height * params.multiple
        case size:
            return _parse_size(size)


def _check_seed(entry: Any, expected: Expectation, index: int) -> None:
    requested = expected.find_number("seed")
    echoed = entry.get("seed") if isinstance(entry, dict) else None
    number = int(echoed) if isinstance(echoed, str) and _WHOLE_NUMBER.fullmatch(echoed) else echoed
    # Of several pictures, the seed may be counted up or be the same for all: both are right.
    if requested is not None and number not in (requested, requested + index):
        raise CheckFailedError("seed", f"the seed {requested:g} was requested, the answer says {shorten(echoed, 40)}")


def _check_changed(picture: Image, sent: AssetMetadata | None, scale: int) -> None:
    """Refuse the picture that was sent, and that with each pixel repeated: a worker without a model can return it."""
    if sent is None or not sent.pixels or picture.size != (sent.width * scale, sent.height * scale):
        return
    plain = picture.convert("RGB")
    if pixel_digest(plain.reduce(scale) if scale > 1 else plain) == sent.pixels:
        raise CheckFailedError(
            "unchanged", "the picture is the one that was sent; nothing was done but to repeat its pixels"
        )


def decode_image(content: bytes, size: tuple[int, int] | None = None, *, larger: Fault = Fault.ORCHESTRATOR) -> Image:
    """Return a picture, fully decoded. Raises CheckFailedError, before decoding if its header says another `size`.

    `larger` is who is at fault for a picture of more than MAX_PIXELS: if nobody knows which size is right, the limit is
    the tester's.
    """
    from PIL import Image

    formats = [name.strip() for name in _match_signatures(content, _SIGNATURES)]
    if not formats:
        for name in _match_signatures(content, _UNSUPPORTED):
            message = f"the tester cannot decode {name.strip()}, so the picture is not judged"
            raise CheckFailedError("unsupported", message, Fault.TESTER)
        message = f"the file is not PNG, JPEG, WebP, GIF or any other picture: it begins with {repr(content[:12])[1:]}"
        raise CheckFailedError("not_an_image", message)
    with decoding("picture", content), warnings.catch_warnings():
        # A warning about size becomes an error, so that Pillow's own limit holds as well.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(io.BytesIO(strip_metadata(content)), formats=formats)
        if size is not None and picture.size != size and not (picture.size == size[::-1] and is_rotated(content)):
            raise CheckFailedError("size", f"the picture is {_format_size(picture.size)}, not {_format_size(size)}")
        if picture.width * picture.height > MAX_PIXELS:
            raise CheckFailedError("too_large", f"the picture claims to be {_format_size(picture.size)}", larger)
        picture.load()
        return picture


def pixel_digest(picture: Image) -> str:
    """Return the SHA-256 of a picture's RGB values."""
    return hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()


def flat_color(picture: Image) -> str:
    """Return the color, as #rrggbb, of a picture that shows nothing else; empty for any other picture."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        # A conversion would cut off more than 8 bits of gray, and make one white field of what is a picture. Floats
        # are from 0 to 1 in some files and from 0 to 255 in others.
        wide = picture.convert("F")
        highest: Any = wide.getextrema()[1]
        factor = 1 / 256 if picture.mode != "F" else 255.0 if highest <= 1 else 1.0
        picture = wide.point(lambda value: value * factor + 0).convert("L")
    reduction = max(1, max(picture.size) // _COMPARED_SIDE)
    if not picture.has_transparency_data:
        plain = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
        return _only_color(plain.reduce(reduction).convert("RGB"))
    # A transparent picture shows what it shows on black or on white. If it is flat on both, nobody sees anything.
    small = picture.convert("RGBA").reduce(reduction)
    color = ""
    for background in ("white", "black"):
        whole = Image.new("RGBA", small.size, background)
        whole.alpha_composite(small)
        color = _only_color(whole.convert("RGB"))
        if not color:
            return ""
    max_alpha = small.getchannel("A").getextrema()[1]
    return color if isinstance(max_alpha, int) and max_alpha > _MAX_INVISIBLE_ALPHA else "transparent"


def _only_color(picture: Image) -> str:
    from PIL import ImageStat

    statistics = ImageStat.Stat(picture)
    return f"#{bytes(map(round, statistics.mean)).hex()}" if max(statistics.stddev) < FLAT_DEVIATION else ""


def _match_signatures(content: bytes, signatures: Mapping[str, tuple[bytes, int]]) -> list[str]:
    return [name for name, (sign, start) in signatures.items() if content[start : start + len(sign)] == sign]


def _parse_size(size: str) -> tuple[int, int] | None:
    width, _, height = size.partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
