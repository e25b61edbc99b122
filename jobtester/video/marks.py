"""Marks: the frame number in the picture itself, as black and white blocks with a check, so that no misread counts.

The top eighth of the picture has two rows of 16 blocks: the number, and its CRC-16. At 512×512 each block has 32×32
pixels, which survives H.264. Positions are relative to the size of the picture, so a scaled picture can be read too.
"""

from __future__ import annotations

import binascii

COLUMNS = 16
ROWS = 2
GRID_ROWS = 16  # rows of blocks that a whole picture would have; the marks are the first two of them
MAX_NUMBER = 2**16 - 1
BLACK = 16
WHITE = 235
# Between these levels a block is neither black nor white, and the picture has no mark.
_DARKEST_WHITE = 165
_BRIGHTEST_BLACK = 85
_CRC_START = 0x1D0F  # not 0: an all black picture must not read as frame 0


def encode_mark(number: int) -> tuple[tuple[bool, ...], ...]:
    """Return the two rows of blocks for a frame number of at most 16 bits; True is white."""
    return _bits(number), _bits(_check(number))


def decode_mark(levels: tuple[tuple[int, ...], ...]) -> int | None:
    """Return the frame number that two rows of brightness levels (0–255) show, None if they show no valid mark."""
    values = []
    for row in levels:
        value = 0
        for level in row:
            if _BRIGHTEST_BLACK < level < _DARKEST_WHITE:
                return None
            value = value << 1 | (level >= _DARKEST_WHITE)
        values.append(value)
    number, check = values
    return number if check == _check(number) else None


def read_mark(plane: bytes, size: int) -> int | None:
    """Return the frame number in the brightness of a picture of `size` × `size` pixels, a multiple of 16."""
    block = size // COLUMNS
    return decode_mark(
        tuple(tuple(_block_level(plane, size, block, x, y) for x in range(COLUMNS)) for y in range(ROWS))
    )


def _block_level(plane: bytes, size: int, block: int, x: int, y: int) -> int:
    # Only the inner pixels count: scaling and compression mix the outer ones with those of the next block.
    margin = block // 4
    inner = range(margin, block - margin)
    start = y * block * size + x * block
    return sum(plane[start + row * size + column] for row in inner for column in inner) // len(inner) ** 2


def _bits(value: int) -> tuple[bool, ...]:
    return tuple(bool(value >> (COLUMNS - 1 - place) & 1) for place in range(COLUMNS))


def _check(number: int) -> int:
    return binascii.crc_hqx(number.to_bytes(2, "big"), _CRC_START)
