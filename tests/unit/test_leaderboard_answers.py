"""What each answer of the Leaderboard means for a stat: stored, refused, to be sent again, or not known."""

from __future__ import annotations

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.leaderboard.client import PostAnswer, PostResult, parse_retry_after

CASES = [
    (200, "ok", PostResult.STORED),
    (200, "okay", PostResult.UNCERTAIN),
    (200, "", PostResult.UNCERTAIN),
    (200, "<html>Please log in</html>", PostResult.UNCERTAIN),
    (201, "ok", PostResult.UNCERTAIN),
    (204, "", PostResult.UNCERTAIN),
    (301, "", PostResult.REFUSED),
    (308, "", PostResult.REFUSED),
    (400, '{"error":"invalid region"}', PostResult.REGION_REJECTED),
    (400, '{"error":"json: cannot unmarshal number 1.5"}', PostResult.REFUSED),
    (403, '{"error":"request can not be authenticated"}', PostResult.REFUSED),
    (404, "404 page not found\n", PostResult.REFUSED),
    (408, "", PostResult.UNCERTAIN),
    (413, "FUNCTION_PAYLOAD_TOO_LARGE", PostResult.REFUSED),
    (429, "", PostResult.NOT_STORED),
    (500, '{"error":"connection refused"}ok', PostResult.UNCERTAIN),
    (500, '{"error":"connection refused"}\nok', PostResult.UNCERTAIN),
    (500, "ok", PostResult.UNCERTAIN),
    (500, '{"error":"ERROR: unsupported Unicode escape sequence (SQLSTATE 22P05)"}ok', PostResult.REFUSED),
    (500, '{"error":"ERROR: value too long (SQLSTATE 22001)"}\nok', PostResult.REFUSED),
    (500, '{"error":"ERROR: index row size (SQLSTATE 54000)"}ok', PostResult.REFUSED),
    (502, "<html>Bad Gateway</html>", PostResult.UNCERTAIN),
    (503, '{"error":"postgres is not configured"}', PostResult.NOT_STORED),
    (503, "<html>Service Unavailable</html>", PostResult.UNCERTAIN),
    (504, "", PostResult.UNCERTAIN),
]


@pytest.mark.parametrize(("status", "text", "result"), CASES)
def test_an_answer_has_one_result(status: int, text: str, result: PostResult) -> None:
    """Only `200 ok` is stored; what may have been stored is never simply sent again or given up."""
    answer = PostAnswer.from_response(status, text)
    assert answer.result is result
    assert (answer.problem == "") is (result is PostResult.STORED)


@given(st.integers(100, 599), st.text(max_size=50))
def test_only_200_ok_counts_as_stored(status: int, text: str) -> None:
    """Whatever comes, nothing else is taken for a success, and there is always a reason."""
    answer = PostAnswer.from_response(status, text)
    if (status, text) != (200, "ok"):
        assert answer.result is not PostResult.STORED
        assert str(status) in answer.problem


@pytest.mark.parametrize(("status", "word"), [(403, "secret"), (404, "url"), (308, "redirects"), (413, "large")])
def test_a_refusal_names_what_to_check(status: int, word: str) -> None:
    """The person who reads it knows which key to look at."""
    assert word in PostAnswer.from_response(status, "no").problem


@pytest.mark.parametrize(("status", "affects_all"), [(400, False), (413, False), (403, True), (404, True), (301, True)])
def test_some_refusals_affect_all_stats(status: int, affects_all: bool) -> None:
    """A wrong secret or address stops all stats, a bad stat only itself."""
    assert PostAnswer.from_response(status, "no").affects_all_stats is affects_all


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    """Both forms of the header; nonsense and the past ask for nothing."""
    assert parse_retry_after("120") == 120
    assert parse_retry_after(" 0 ") == 0
    assert 50 < (parse_retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:26:30 GMT") == 90, (
        "by the server's clock"
    )
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", "today") == 0
    assert parse_retry_after("") is None
    assert parse_retry_after("soon") is None
    assert parse_retry_after("-5") is None
    assert parse_retry_after("Wed, 21 Oct 99999999 07:28:00 GMT") is None
    assert parse_retry_after("9" * 5000) == float("inf")


@given(st.text(max_size=60))
def test_no_retry_after_header_raises(text: str) -> None:
    """Whatever a server sends is a pause or none."""
    pause_s = parse_retry_after(text)
    assert pause_s is None or pause_s >= 0


@pytest.mark.parametrize("status", [400, 429, 500, 502, 503])
def test_retry_after_counts_where_the_stat_may_be_sent_again(status: int) -> None:
    """A stat is retried no sooner than the Leaderboard asks for."""
    assert PostAnswer.from_response(status, "invalid region" if status == 400 else "", "77").retry_after_s == 77


def test_a_failure_to_connect_is_no_refusal() -> None:
    """It says nothing about the secret."""
    assert not PostAnswer(PostResult.NOT_STORED, "no connection").affects_all_stats
