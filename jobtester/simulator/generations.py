"""The builds of go-livepeer that a simulated gateway can be, and how they differ for who sends them jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Generation:
    """One build. `unselectable` is what a client gets when no orchestrator could be selected at the last try.

    `capped`: the tries are limited in number as well as by the window. `llm_form`: llm jobs are multipart forms.
    `mainline_discovery`: it has getNetworkCapabilities. `byoc`: it has external capabilities.
    """

    livepeer_version: str
    unselectable: Literal["eof", "503"]
    capped: bool = True
    llm_form: bool = False
    mainline_discovery: bool = True
    byoc: bool = True


LATEST = "0.9.1"
GENERATIONS = {
    "0.0.11": Generation(
        "0.8.0", "503", capped=False, llm_form=True, mainline_discovery=False, byoc=False
    ),  # fork of 2024, once the usual image
    "0.8.6": Generation("0.8.6", "503"),
    LATEST: Generation("0.9.1", "eof"),
}


def generation(version: str) -> Generation:
    """Return the build of that version. Raises ValueError for one that is not known."""
    try:
        return GENERATIONS[version]
    except KeyError:
        raise ValueError(f"unknown version {version!r}: one of {', '.join(GENERATIONS)}") from None
