"""Text from outside is cleaned where it is read: by discovery, the events, the receiver and the verdict."""

from __future__ import annotations

import json
import unicodedata

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.domain.external_results import InvalidStatError, parse_results
from jobtester.domain.orchestrators import Capability
from jobtester.domain.reasons import Verdict
from jobtester.domain.untrusted_text import clean_address, clean_label, clean_name, clean_prose
from jobtester.gateway.discovery import join_capabilities, parse_network_capabilities, parse_registered
from jobtester.gateway.gateway_events import parse_events
from tests.harness.receiver import AI_STAT

ADDRESS = "0x" + "ab" * 20
HOSTILE = (
    "a\ud800b", "a\x00b", "a\x1b[31mb", "a\nb", "a\x7fb", "a\x85b", "a\u202eb", "a\u200bb", "a\ufeffb", "a\u2028b",
    "a\u00adb", "a\U000e0041b", "a\ufffeb", "a" * 1_001,
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_no_names(text: str) -> None:
    """Whatever nobody can see, send or print is refused, since a mended name would be another one."""
    assert clean_name(text) == ""
    assert clean_label(text).encode()


@pytest.mark.parametrize("text", ["black-forest-labs/FLUX.1-dev", "модель", "模型 v2", "é", "👍🏽", "a b"])
def test_ordinary_names_of_any_language_stay_unchanged(text: str) -> None:
    """A name is what its owner calls it."""
    assert clean_name(text) == text
    assert clean_prose(text + "\n\tx") == text + "\n\tx"


@given(st.text(st.characters()))
def test_what_is_cleaned_can_be_sent_and_printed(text: str) -> None:
    """Whatever comes in, what comes out is valid Unicode without controls."""
    for cleaned in (clean_name(text), clean_label(text)):
        assert cleaned.encode() or not cleaned
        assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in cleaned)
    assert clean_prose(text, 20).encode() or not clean_prose(text, 20)
    assert len(clean_prose(text, 20)) <= 20


@pytest.mark.parametrize(
    "text", ["", "0x1", "0x" + "g" * 40, ADDRESS + "0", ADDRESS + "\x00", ADDRESS[:-1] + "ａ", 7, None]
)
def test_addresses_go_by_their_pattern(text: object) -> None:
    """Forty hexadecimal digits, nothing else."""
    assert clean_address(text) == ""


def test_addresses_are_brought_to_lower_case() -> None:
    """However they are written."""
    assert clean_address(f" {ADDRESS.upper().replace('X', 'x')}\n") == ADDRESS


@pytest.mark.parametrize("text", HOSTILE)
def test_discovery_leaves_out_what_cannot_be_named(text: str) -> None:
    """A hostile model has no name, a hostile capability goes; what the same orchestrator offers besides stays."""
    escaped = json.loads(json.dumps(text))
    entry = {
        "address": ADDRESS,
        "orch_uri": "https://a.example:8935",
        "capabilities": {
            "version": escaped,
            "constraints": {"PerCapability": {"33": {"models": {escaped: {"warm": True}, "good": {"warm": True}}}}},
        },
        "capabilities_prices": [
            {"capability": 37, "constraint": escaped, "pricePerUnit": 1},
            {"capability": 37, "constraint": "byoc", "pricePerUnit": 1},
        ],
        "capability_options": {"byoc": [{"model": escaped}]},
    }
    elsewhere = {"address": ADDRESS, "orch_uri": f"https://{escaped}.example", "capabilities": {}}
    strange = {**entry, "address": escaped}
    orchestrators = list(parse_network_capabilities({"orchestrators": [entry, elsewhere, strange]}))
    assert {(capability.pipeline, capability.model) for capability in orchestrators[0].capabilities} == {
        ("llm", ""),  # which the plan skips as no_model
        ("llm", "good"),
        ("byoc", "byoc"),
    }
    assert [orchestrator.service_uri for orchestrator in orchestrators] == ["https://a.example:8935", ""]
    for orchestrator in orchestrators:
        orjson.dumps([orchestrator.address, orchestrator.service_uri, orchestrator.version, orchestrator.local_address])


def test_the_capabilities_of_a_tester_gateway_are_read_as_strictly() -> None:
    """The second source of discovery has the same rules."""
    registered = list(parse_registered([
        {"Address": ADDRESS, "ServiceURI": "https://a\u202e.example", "Active": True},
        {"Address": ADDRESS, "ServiceURI": "https://a.example", "Active": True},
    ]))  # fmt: skip
    assert [orchestrator.service_uri for orchestrator in registered] == ["https://a.example"]
    models = [{"name": "a\ud800"}, {"name": "good"}]
    answer = {"orchestrators": [{"address": ADDRESS, "pipelines": [{"type": "llm", "models": models}]}]}
    (joined,) = join_capabilities(registered, answer)
    assert joined.capabilities == (Capability("llm", "good", warm=False),)


@pytest.mark.parametrize("text", HOSTILE)
def test_received_results_are_cleaned(text: str) -> None:
    """U+0000 is refused as the Leaderboard refuses it; everything else is replaced, before it is kept or forwarded."""
    for key in ("model", "pipeline", "input_parameters", "response_payload"):
        body = json.dumps({**AI_STAT, key: text}).encode()
        try:
            (received,) = parse_results(body)
        except InvalidStatError:
            continue
        value = received.fields[key]
        assert value.encode()
        assert clean_prose(value) == value
        if key in ("model", "pipeline"):
            assert clean_label(value) == value


def test_a_received_orchestrator_is_an_address() -> None:
    """Anything else would stand among the orchestrators of the pages."""
    with pytest.raises(InvalidStatError, match="orchestrator"):
        parse_results(json.dumps({**AI_STAT, "orchestrator": "not an address"}).encode())


@pytest.mark.parametrize("text", HOSTILE)
def test_events_are_cleaned(text: str) -> None:
    """Their names are names, and their error is for people to read."""
    envelope = {
        "type": "ai",
        "gateway": text,
        "data": [
            {"type": "ai_batch_request_completed", "pipeline": "llm", "model_id": text, "orch_url": text, "error": text}
        ],
    }
    (event,) = parse_events(envelope, 1.0)
    assert (event.gateway, event.pipeline_model.model, event.service_uri) == ("", "", "")
    assert event.error.encode()
    assert clean_prose(event.error) == event.error


@pytest.mark.parametrize("text", HOSTILE)
def test_messages_of_verdicts_are_cleaned(text: str) -> None:
    """An error's text goes to terminals, pages and the Leaderboard."""
    message = Verdict.from_code("gateway_fault", text * 5).message
    assert message.encode()
    assert clean_prose(message) == message
    assert len(message) <= 4_000
