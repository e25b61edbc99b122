"""What each answer of the Leaderboard means for a stat: stored, refused, to be sent again, or not known."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.leaderboard.answers import Answer, Fate, classify, pause_of

CASES = [
    (200, "ok", Fate.STORED),
    (200, "okay", Fate.UNKNOWN),
    (200, "", Fate.UNKNOWN),
    (200, "<html>Please log in</html>", Fate.UNKNOWN),
    (201, "ok", Fate.UNKNOWN),
    (204, "", Fate.UNKNOWN),
    (301, "", Fate.REFUSED),
    (308, "", Fate.REFUSED),
    (400, '{"error":"invalid region"}', Fate.REGION),
    (400, '{"error":"json: cannot unmarshal number 1.5"}', Fate.REFUSED),
    (403, '{"error":"request can not be authenticated"}', Fate.REFUSED),
    (404, "404 page not found\n", Fate.REFUSED),
    (408, "", Fate.UNKNOWN),
    (413, "FUNCTION_PAYLOAD_TOO_LARGE", Fate.REFUSED),
    (429, "", Fate.LATER),
    (500, '{"error":"connection refused"}ok', Fate.UNKNOWN),
    (500, '{"error":"connection refused"}\nok', Fate.UNKNOWN),
    (500, "ok", Fate.UNKNOWN),
    (500, '{"error":"ERROR: unsupported Unicode escape sequence (SQLSTATE 22P05)"}ok', Fate.REFUSED),
    (500, '{"error":"ERROR: value too long (SQLSTATE 22001)"}\nok', Fate.REFUSED),
    (500, '{"error":"ERROR: index row size (SQLSTATE 54000)"}ok', Fate.REFUSED),
    (502, "<html>Bad Gateway</html>", Fate.UNKNOWN),
    (503, '{"error":"postgres is not configured"}', Fate.LATER),
    (503, "<html>Service Unavailable</html>", Fate.UNKNOWN),
    (504, "", Fate.UNKNOWN),
]


@pytest.mark.parametrize(("status", "text", "fate"), CASES)
def test_an_answer_has_its_fate(status: int, text: str, fate: Fate) -> None:
    """Only `200 ok` is stored; what may have been stored is never simply sent again or given up."""
    answer = classify(status, text)
    assert answer.fate is fate
    assert (answer.problem == "") is (fate is Fate.STORED)


@given(st.integers(100, 599), st.text(max_size=50))
def test_only_200_ok_counts_as_stored(status: int, text: str) -> None:
    """Whatever comes, nothing else is taken for a success, and there is always a reason."""
    answer = classify(status, text)
    if (status, text) != (200, "ok"):
        assert answer.fate is not Fate.STORED
        assert str(status) in answer.problem


@pytest.mark.parametrize(("status", "word"), [(403, "secret"), (404, "url"), (308, "redirects"), (413, "large")])
def test_a_refusal_says_what_to_check(status: int, word: str) -> None:
    """The person who reads it knows which key to look at."""
    assert word in classify(status, "no").problem


@pytest.mark.parametrize(("status", "everybody"), [(400, False), (413, False), (403, True), (404, True), (301, True)])
def test_a_refusal_tells_whether_it_concerns_everybody(status: int, everybody: bool) -> None:
    """A wrong secret or address stops all stats, a bad stat only itself."""
    assert classify(status, "no").everybody is everybody


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    """Both forms of the header; nonsense and the past ask for nothing."""
    assert pause_of("120") == 120
    assert pause_of(" 0 ") == 0
    assert 50 < (pause_of(email.utils.formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert pause_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert pause_of("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:26:30 GMT") == 90, "by the server's clock"
    assert pause_of("Wed, 21 Oct 2015 07:28:00 GMT", "today") == 0
    assert pause_of("") is None
    assert pause_of("soon") is None
    assert pause_of("-5") is None
    assert pause_of("Wed, 21 Oct 99999999 07:28:00 GMT") is None
    assert pause_of("9" * 5000) == float("inf")


@given(st.text(max_size=60))
def test_no_header_is_a_surprise(text: str) -> None:
    """A server may send what it likes."""
    pause = pause_of(text)
    assert pause is None or pause >= 0


@pytest.mark.parametrize("status", [400, 429, 500, 502, 503])
def test_retry_after_is_kept_where_something_is_sent_again(status: int) -> None:
    """Whatever is tried again is tried no sooner than asked for."""
    assert classify(status, "invalid region" if status == 400 else "", "77").retry_after_s == 77


def test_an_answer_without_a_status_is_nobodys_refusal() -> None:
    """A failure to connect says nothing about the secret."""
    assert not Answer(Fate.LATER, "no connection").everybody
