"""Other testers' results are read as the Leaderboard's own decoder reads them, and refused where that would."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from jobtester.domain.external_results import InvalidStatError, parse_results

ADDRESS = "0x" + "ab" * 20
TRANSCODING: dict[str, Any] = {"region": "FRA", "orchestrator": ADDRESS, "round_trip_time": 0.5}
AI: dict[str, Any] = {**TRANSCODING, "model": "m", "pipeline": "Llm"}


def parse(text: str) -> dict[str, Any]:
    """Return the fields of the one result in a text."""
    (result,) = parse_results(text.encode())
    return result.fields


def test_one_or_several_results_are_read() -> None:
    """What is missing gets the Leaderboard's defaults."""
    (ai,) = parse_results(orjson.dumps(AI))
    assert (ai.kind, ai.stat.model, ai.stat.pipeline, ai.stat.round_trip_s) == ("ai", "m", "Llm", 0.5)
    assert ai.fields["errors"] is None
    assert (ai.fields["success_rate"], ai.fields["timestamp"]) == (0, 0)
    assert [result.kind for result in parse_results(orjson.dumps([AI, TRANSCODING]))] == ["ai", "transcoding"]


def test_a_rate_between_0_and_1_is_fine() -> None:
    """Other testers post one stat for several segments."""
    assert parse_results(orjson.dumps(AI | {"success_rate": 0.5}))[0].fields["success_rate"] == 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"region": ""}, "invalid region"),
        ({"region": 1}, "region has to be a string"),
        ({"orchestrator": " "}, "orchestrator is missing"),
        ({"orchestrator": "0x12"}, "orchestrator has to be an address"),
        ({"model": ""}, "belong together"),
        ({"pipeline": ""}, "belong together"),
        ({"model": "a\0"}, "U+0000"),
        ({"round_trip_time": None}, "round_trip_time is missing"),
        ({"round_trip_time": 0}, "round_trip_time"),
        ({"round_trip_time": "1"}, "has to be a number"),
        ({"round_trip_time": 86_400}, "a day of seconds"),
        ({"success_rate": 1.5}, "success_rate has to be from 0 to 1"),
        ({"timestamp": 1.5}, "whole number"),
        ({"timestamp": -1}, "whole number"),
        ({"model_is_warm": 1}, "true or false"),
        ({"errors": {}}, "array of at most 100"),
        ({"errors": [{}] * 101}, "array of at most 100"),
        ({"errors": [1]}, "has to be an object"),
        ({"errors": [{"count": 1.5}]}, "count has to be a whole number"),
        ({"response_payload": "x" * 4_000_000}, "larger than"),
    ],
)
def test_unfit_fields_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    """The sender learns what to correct."""
    with pytest.raises(InvalidStatError) as refused:
        parse_results(orjson.dumps(AI | change))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "1", '"x"', "[1]", '{"a": NaN}', "[" * 100_000, '{"timestamp": ' + "9" * 5000 + "}"]
)
def test_what_is_no_result_is_refused(text: str) -> None:
    """Deep nesting and numbers of thousands of digits end in the same message as bad JSON."""
    with pytest.raises(InvalidStatError):
        parse_results(text.encode())


def test_names_are_compared_without_case_and_the_last_of_a_name_counts() -> None:
    """A null changes nothing, and what is not known is left out."""
    head = f'"Region":"FRA","ORCHESTRATOR":"{ADDRESS.upper().replace("0X", "0x")}","round_trip_time":1'
    fields = parse(f'{{{head},"region":"LON","region":null,"ſuccess_rate":1,"other":2}}')
    assert (fields["region"], fields["orchestrator"], fields["success_rate"]) == ("LON", ADDRESS, 1)
    assert "other" not in fields


def test_a_repeated_list_of_errors_is_merged_entry_by_entry() -> None:
    """As Go does: a shorter list hides entries, and a longer one brings them back."""
    head = f'"region":"FRA","orchestrator":"{ADDRESS}","round_trip_time":1'
    first = '"errors":[{"error_code":"a","count":1},{"error_code":"b","count":2}]'
    fields = parse(f'{{{head},{first},"errors":[{{"message":"m"}}]}}')
    assert fields["errors"] == [{"error_code": "a", "message": "m", "count": 1}]
    fields = parse(f'{{{head},{first},"errors":[{{}}],"errors":[{{}},{{"count":3}}]}}')
    assert fields["errors"][1] == {"error_code": "b", "message": "", "count": 3}
    assert parse(f'{{{head},{first},"errors":null}}')["errors"] is None
    assert parse(f'{{{head},{first},"errors":[]}}')["errors"] == []


def test_each_broken_byte_becomes_one_mark() -> None:
    """Python would put one mark for several bytes."""
    body = orjson.dumps(AI).replace(b'"m"', b'"a\xf0\x9f\x98b"')
    assert parse_results(body)[0].fields["model"] == "a\ufffd\ufffd\ufffdb"
