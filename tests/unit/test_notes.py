"""Notes: what is odd about an answer travels with its result, and changes no outcome."""

from __future__ import annotations

import io

from jobtester.domain.notes import Note
from jobtester.domain.outcome import Finding
from jobtester.pipelines import looking
from jobtester.pipelines.checks.sample import Notes
from jobtester.pipelines.looking import Report


def test_a_thousand_oddities_of_one_kind_are_one_note() -> None:
    """The first message of a code stays, so that no answer makes a result large."""
    notes = Notes()
    for number in range(1000):
        notes.add("usage", f"message {number}")
    notes.add("finish", "another")
    assert notes.of("chat") == (Note("chat", "usage", "message 0"), Note("chat", "finish", "another"))


def test_notes_come_back_from_a_worker() -> None:
    """A report goes through JSON and is the same afterwards."""
    report = Report((Finding("chat", notes=(Note("chat", "usage", "3 + 4 is not 8"),)), Finding("json", "type", "x")))
    pipe = io.BytesIO()
    looking.write(looking.pack(report), pipe)
    pipe.seek(0)
    message = looking.read(pipe)
    assert message is not None
    assert looking.unpack(message) == report


def test_a_note_is_no_problem() -> None:
    """A finding with notes alone passes."""
    assert Finding("chat", notes=(Note("chat", "usage", "odd"),)).passed
