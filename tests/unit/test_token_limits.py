"""A model that runs out of tokens while it thinks is asked with more of them, which counts in the price estimate."""

from __future__ import annotations

from jobtester.checks.chat import TOKEN_LIMIT
from jobtester.domain.orchestrators import Capability, Price
from jobtester.domain.reasons import Note
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.request import Requests
from jobtester.pipelines.token_limits import TokenLimits

ALL = load_catalogue({}, Assets())
MODEL = "maker/Some[model]*"
RAN_OUT = (Note("chat", TOKEN_LIMIT, "it was still thinking"),)


def token_limit(limits: TokenLimits, model: str = MODEL) -> int:
    """Return how many tokens a model is asked for in the next tick."""
    applied = limits.apply(ALL)
    return int(Requests(applied, Assets(), 0).build(applied["llm"], model).parameters["max_tokens"])


def test_the_limit_grows_up_to_a_bound() -> None:
    """It grows with each tick that was not enough, for that model alone, and then stays."""
    limits = TokenLimits()
    grown = []
    for _ in range(6):
        limits.learn(limits.apply(ALL)["llm"], MODEL, RAN_OUT)
        grown.append(token_limit(limits))
    assert grown == [256, 1024, 4096, 4096, 4096, 4096]
    assert token_limit(limits, "maker/other") == 64


def test_many_answers_of_one_tick_raise_it_once() -> None:
    """They were all asked with the same limit."""
    limits = TokenLimits()
    for _ in range(5):
        limits.learn(ALL["llm"], MODEL, RAN_OUT)
    assert token_limit(limits) == 256


def test_limits_are_restored_from_requests_that_ran_out() -> None:
    """The largest counts, in whatever order they come; what is no request raises nothing."""
    limits = TokenLimits()
    limits.restore([("llm", MODEL, '{"max_tokens": 256}'), ("llm", MODEL, '{"max_tokens": 64}')])
    limits.restore(
        [("llm", "other", text) for text in ("", "{", "[]", "{}", '{"max_tokens": true}', '{"max_tokens": "9"}')]
    )
    limits.restore([("llm", "huge", '{"max_tokens": 4096}'), ("gone", MODEL, '{"max_tokens": 64}')])
    assert [token_limit(limits, model) for model in (MODEL, "other", "huge")] == [1024, 64, 4096]


def test_other_notes_raise_nothing() -> None:
    """Only the note that says so."""
    limits = TokenLimits()
    limits.learn(ALL["llm"], MODEL, (Note("chat", "usage", "odd"),))
    assert limits.apply(ALL) is ALL


def test_the_price_is_estimated_with_the_larger_limit() -> None:
    """Also where the smaller one was asked for before; the catalogue itself stays as it is."""
    limits = TokenLimits()
    capability = Capability("llm", MODEL, price=Price(1, 1))
    assert ALL["llm"].estimate_price_wei(capability) == 64
    limits.learn(ALL["llm"], MODEL, RAN_OUT)
    assert limits.apply(ALL)["llm"].estimate_price_wei(capability) == 256
    assert ALL["llm"].estimate_price_wei(capability) == 64


def test_models_that_are_known_to_think_are_asked_for_more() -> None:
    """By their names, in whichever case, for both pipelines."""
    for model in ("zai-org/GLM-4.7-Flash", "deepseek-r1:8b", "openai/gpt-oss-20b", "Qwen/QwQ-32B", "o3-mini"):
        for slug in ("llm", "openai-chat-completions"):
            request = Requests(ALL, Assets(), 0).build(ALL[slug], model)
            assert request.parameters["max_tokens"] >= 1024, model
            assert request.expectation.checks[0].params.thinks
            assert request.expectation.checks[0].params.contains
    assert token_limit(TokenLimits(), "meta-llama/Meta-Llama-3.1-8B-Instruct") == 64
