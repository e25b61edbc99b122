"""A request's parameters are checked one by one, and the message names the one that cannot be used."""

from __future__ import annotations

import pytest
from multidict import MultiDict

from jobtester.web.query_params import (
    DEFAULT_LIMIT,
    OrchestratorPageParams,
    OutboxPageParams,
    QueryError,
    QueryParams,
    ResultPageParams,
    SequencePageParams,
)

ADDRESS = "0x" + "aB" * 20


def test_parameters_that_are_left_out_match_all() -> None:
    """Without any, a page has the default size and begins at the newest result."""
    params = ResultPageParams.from_query({})
    assert (params.limit, params.cursor, params.outcome) == (DEFAULT_LIMIT, None, "")


def test_values_are_parsed() -> None:
    """Numbers become numbers, addresses lower-case, codes stay as they are."""
    query = {"limit": "5", "cursor": "17", "orchestrator": ADDRESS, "outcome": "failed", "reason": "check:chat"}
    params = ResultPageParams.from_query(query)
    assert (params.limit, params.cursor, params.orchestrator) == (5, 17, ADDRESS.lower())
    assert (params.outcome, params.reason) == ("failed", "check:chat")


@pytest.mark.parametrize(
    ("model", "query", "message"),
    [
        (QueryParams, {"x": "1"}, "x: unknown parameter; this route has none"),
        (SequencePageParams, {"page": "1"}, "page: unknown parameter; this route has limit, cursor"),
        (SequencePageParams, {"é" * 50: "1"}, "?" * 40 + ": unknown parameter; this route has limit, cursor"),
        (SequencePageParams, {"limit": "0"}, "limit: must be a whole number from 1 to 500"),
        (SequencePageParams, {"limit": "501"}, "limit: must be a whole number from 1 to 500"),
        (SequencePageParams, {"limit": "٣"}, "limit: must be a whole number from 1 to 500"),
        (SequencePageParams, {"limit": ""}, "limit: is empty; leave it out to match all"),
        (SequencePageParams, {"cursor": "-1"}, "cursor: must be the `next` of an earlier page, unchanged"),
        (SequencePageParams, {"cursor": "9" * 18}, "cursor: must be the `next` of an earlier page, unchanged"),
        (ResultPageParams, {"model": "x" * 1001}, "model: longer than 1000 characters"),
        (ResultPageParams, {"model": "\ud800"}, "model: is not text"),
        (ResultPageParams, {"outcome": "won"}, "outcome: must be one of passed, failed, unscored"),
        (ResultPageParams, {"reason": "because"}, "reason: no such reason code; docs/outcomes.md lists them"),
        (
            OrchestratorPageParams,
            {"cursor": "5"},
            "cursor: must be an Ethereum address, 0x and 40 hexadecimal digits",
        ),
        (OutboxPageParams, {"state": "lost"}, "state: must be one of held, suspect, pending, sending, uncertain, "),
    ],
)
def test_the_message_names_the_parameter(model: type[QueryParams], query: dict[str, str], message: str) -> None:
    """Each slip has one message that says what to change."""
    with pytest.raises(QueryError) as caught:
        model.from_query(query)
    assert str(caught.value).startswith(message)


def test_a_repeated_parameter_is_refused() -> None:
    """Which of two values was meant cannot be known."""
    with pytest.raises(QueryError, match=r"^limit: given more than once$"):
        SequencePageParams.from_query(MultiDict([("limit", "1"), ("limit", "2")]))
