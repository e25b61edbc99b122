"""Hold the settings of delivery that may change while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobtester.settings.model import Settings

_MISS_AFTER_S = 90.0  # up to 20 s each for connecting, reloading regions and inserting, and some more
_MISS_AFTER_ON_VERCEL_S = 300.0  # the longest that a function may run there


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """What a reload may change. Durations in seconds.

    A stat that is not found counts as lost only `miss_after_s` after it was sent, since the server may still be storing
    it. Where reading back proves nothing for `give_up_reading_s` more, `uncertain` decides.
    """

    region: str
    uncertain: Literal["resend", "hold"] = "hold"
    max_age_s: float = 3600.0
    parallel: int = 8
    audit_per_tick: int = 0
    miss_after_s: float = _MISS_AFTER_S
    give_up_reading_s: float = 600.0

    @classmethod
    def from_settings(cls, settings: Settings, url: str) -> DeliveryOptions:
        """Return the options that `settings` ask for.

        `url` is the address in use, which a reload does not change. It tells how long the server may take to store.
        """
        delivery = settings.delivery
        default_s = _MISS_AFTER_ON_VERCEL_S if "vercel" in url else _MISS_AFTER_S
        return cls(
            region=settings.region,
            uncertain=delivery.uncertain,
            max_age_s=delivery.max_age,
            parallel=delivery.parallel,
            audit_per_tick=delivery.audit,
            miss_after_s=delivery.miss_after if delivery.miss_after is not None else default_s,
        )


@dataclass(slots=True)
class OptionsHolder:
    """The options in force. All parts of a delivery share one holder, so that a reload reaches them at once."""

    current: DeliveryOptions
