"""Samples of what gateways return and ask: made up in tests/fixtures, and recorded ones where a checkout has them."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDERS = {
    "made-up": Path(__file__).parents[1] / "fixtures",
    "recorded": Path(__file__).parents[3] / "shared" / "samples",
}


def each_sample(*names: str) -> pytest.MarkDecorator:
    """Return a mark that runs a test with each file of these names, as `sample`."""
    paths = [(kind, folder / name) for kind, folder in _FOLDERS.items() for name in names]
    parameters = [pytest.param(path, id=f"{kind}-{path.stem}") for kind, path in paths if path.is_file()]
    return pytest.mark.parametrize("sample", parameters)
