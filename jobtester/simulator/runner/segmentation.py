"""A simulated segment-anything-2: it finds an object by flood fill from the prompt. Call in a thread."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_TOLERANCE = 90
_MARK = (1, 254, 3)


def segment(
    upload: bytes, *, points: str, box: str, multimask: bool, logits: bool, wrong: bool = False, nan: bool = False
) -> dict[str, str]:
    """Return masks, scores and logits, each as nested JSON lists in a string. ValueError for bad prompts."""
    from PIL import Image

    with Image.open(io.BytesIO(upload)) as opened:
        width, height = opened.size
        mask_image = _flood_fill(
            opened.convert("RGB"), _start_point(points, box, width, height), _parse_box(box, width, height)
        )
    if wrong:
        mask_image = mask_image.transpose(Image.Transpose.ROTATE_180)
    count = 3 if multimask else 1
    inside, outside = ("4.5", "-6.25") if logits else ("1.0", "0.0")
    mask = _format_mask(mask_image, "NaN" if nan else inside, outside)
    small = _format_mask(mask_image.resize((256, 256), Image.Resampling.NEAREST), "4.5", "-6.25")
    return {
        "logits": f"[{', '.join([small] * count)}]",
        "masks": f"[{', '.join([mask] * count)}]",
        "scores": json.dumps([0.96, 0.41, 0.12][:count]),
    }


def _start_point(points: str, box: str, width: int, height: int) -> tuple[int, int]:
    if points:
        x, y = _flatten(json.loads(points))[:2]
    elif box:
        left, top, right, bottom = _flatten(json.loads(box))[:4]
        x, y = (left + right) / 2, (top + bottom) / 2
    else:
        x, y = width / 2, height / 2
    return min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)


def _parse_box(box: str, width: int, height: int) -> tuple[int, int, int, int]:
    if not box:
        return 0, 0, width, height
    left, top, right, bottom = _flatten(json.loads(box))[:4]
    return int(left), int(top), int(right), int(bottom)


def _flatten(value: object) -> list[float]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for item in value for number in _flatten(item)]
    if isinstance(value, int | float):
        return [float(value)]
    raise ValueError(f"not a number: {value!r}")


def _flood_fill(image: Image.Image, start: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    from PIL import Image, ImageChops, ImageDraw

    ImageDraw.floodfill(image, start, _MARK, thresh=_TOLERANCE)
    difference = ImageChops.difference(image, Image.new("RGB", image.size, _MARK)).convert("L")
    mask = difference.point([255] + [0] * 255)
    inside_box = Image.new("L", image.size, 0)
    inside_box.paste(mask.crop(box), box[:2])
    return inside_box


def _format_mask(mask: Image.Image, inside: str, outside: str) -> str:
    width, height = mask.size
    data = mask.tobytes()
    lines = (data[row * width : (row + 1) * width] for row in range(height))
    return (
        "[" + ", ".join("[" + ", ".join(inside if pixel else outside for pixel in line) + "]" for line in lines) + "]"
    )
