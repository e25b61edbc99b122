"""Details of a result: what was sent and expected, how long each part took, and what came back, kept small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.domain.exchanges import SentRequest

RECEIVED_TYPES = ("image/jpeg", "audio/wav")  # that are encoded again, and no others are kept or served


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """What came back, made small: a picture, or the beginning of a sound.

    `sha256` and `original_size` (bytes) are those of the file as it came, `width` and `height` (pixels) and `seconds`
    what it shows or how long it lasts; 0 where that means nothing.
    """

    content_type: str
    content: bytes
    sha256: str
    original_size: int
    width: int = 0
    height: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamDetails:
    """What a live video did over time; every time is in seconds from its start.

    `delays` are when frames arrived and how long after they were sent, `states` when a state was first reported.
    """

    delays: tuple[tuple[float, float], ...] = ()
    states: tuple[tuple[float, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the details as plain values, rounded to milliseconds."""
        return {
            "delays": [[round(at_s, 3), round(delay_s, 3)] for at_s, delay_s in self.delays],
            "states": [[round(at_s, 3), state] for at_s, state in self.states],
        }


@dataclass(frozen=True, slots=True)
class ResultDetails:
    """What the page of one result shows, and no list needs.

    `inputs` are the files of the request by form field: their `name`, their `sha256`, and what is known of them.
    `checks` are the checks of the answer: `check` is the name, `parameters` the expected values, and of one that failed
    also `problem` and `message`. `connect_s` and `first_byte_s` are those of the exchange. `stream` is there for live
    video only.
    """

    request: SentRequest | None = None
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checks: tuple[Mapping[str, Any], ...] = ()
    connect_s: float | None = None
    first_byte_s: float | None = None
    received: ReceivedFile | None = None
    stream: StreamDetails | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the details as plain values, as the store keeps them; the received file is stored on its own."""
        request = self.request
        sent = {"method": request.method, "url": request.url, "headers": dict(request.headers)} if request else None
        stream = {"stream": self.stream.as_json()} if self.stream is not None else {}
        return stream | {
            "request": sent,
            "inputs": {name: dict(facts) for name, facts in self.inputs.items()},
            "checks": [dict(check) for check in self.checks],
            "connect_s": self.connect_s,
            "first_byte_s": self.first_byte_s,
        }
