"""Notes: what is odd about an answer and is held against nobody, such as token counts that do not add up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One oddity: the check that saw it, a short `code` from a bounded set, and a sentence for people.

    The code is a label of the metrics, so it is written in the program and never taken from an answer.
    """

    check: str
    code: str
    message: str

    def as_json(self) -> dict[str, str]:
        """Return the note as plain values, as the store keeps it and the API shows it."""
        return {"check": self.check, "note": self.code, "message": self.message}
