"""What people ask is answered within two clicks of README, under a heading that repeats the question."""

from __future__ import annotations

import pytest

from tests.harness import pages
from tests.harness.pages import Page
from tools.documentation_tables import ROOT

README = Page(ROOT / "README.md")
INDEX = pages.page_of("README.md")
MAX_README_LINES, MAX_README_LINKS = 130, 12

# Each question with the page and heading that answer it.
QUESTIONS = {
    "which models go to which orchestrator": (
        "pipelines.md", "How does the tester know what models to send to a given orchestrator?"
    ),
    "how orchestrators are found": ("discovery.md", "How are pipelines, models and orchestrators found?"),
    "how it is scheduled": ("configuration.md", "How is it scheduled: interval and cron?"),
    "how the image is built and used": ("production.md", "How do I build and use the image?"),
    "how it runs in production": ("production.md", "How do I run it in production with Compose?"),
    "how a pipeline is added": ("pipelines.md", "How do I add a pipeline?"),
    "when a pipeline gets jobs": ("pipelines.md", "When does a pipeline of my own get jobs?"),
    "how a built-in pipeline is added": ("development.md", "How do I add a built-in pipeline?"),
    "the Stats API": ("leaderboard.md", "How do I configure the Leaderboard (Stats API) server?"),
    "the gateway": ("configuration.md", "How do I configure a gateway?"),
    "why a special gateway": ("gateway.md", "How do I set up a gateway, and why a special fork?"),
    "the gateway's flags": ("gateway.md", "Which flags?"),
    "the address of the webhook": (
        "configuration.md", "How do I configure the address and port of the webhook URL?"
    ),
    "keys": ("configuration.md", "Which keys are there?"),
    "inputs and assets": (
        "pipelines-reference.md",
        "Which configuration entries, JSON inputs and assets does each pipeline use?",
    ),
    "lists of values": ("pipelines.md", "What does a list of values mean?"),
    "what a request looks like": ("pipelines.md", "What does a request look like?"),
    "what is sent": ("leaderboard.md", "What is sent to the Stats API, field by field?"),
    "how a stat is extended": ("leaderboard.md", "How do I extend the JSON of a stat?"),
    "how it is extended with code": ("pipelines.md", "How do I extend it with code?"),
    "which addresses": ("configuration.md", "Which addresses do I set?"),
    "who is at fault": ("outcomes.md", "Who is at fault for what?"),
    "what testing costs": ("configuration.md", "How do I limit the cost of testing?"),
    "error codes": ("outcomes.md", "What are the possible error codes?"),
    "round trip time": ("outcomes.md", "What does round trip time mean exactly?"),
    "why something is not tested": ("outcomes.md", "Why was something not tested at all?"),
    "several regions": ("regions.md", "Several regions"),
    "how regions are staggered": ("configuration.md", "How are regions staggered?"),
    "how large the store gets": ("operations.md", "How large does the database get?"),
    "who served": ("targeting.md", "How does the tester know who served a job?"),
    "how scores come about": ("leaderboard.md", "How do scores come about at the Leaderboard?"),
    "what choices do to scores": ("leaderboard.md", "What do a tester's choices do to scores?"),
    "the real network": ("getting-started.md", "How do I test the real network?"),
    "routes": ("routes.md", "Which routes are there?"),
    "development": ("development.md", "How do I set up for development, and run the tests?"),
    "the earlier tester": ("migration.md", "Coming from the earlier Go tester"),
    "trouble": ("troubleshooting.md", "Troubleshooting"),
    "words": ("glossary.md", "Glossary"),
    "how fast it is": ("performance.md", "What can I expect?"),
    "releases": ("development.md", "How do I release a version?"),
}  # fmt: skip


@pytest.mark.parametrize("subject", QUESTIONS)
def test_each_question_has_its_heading(subject: str) -> None:
    """It is asked on its page, and nowhere else: each thing is explained once."""
    name, heading = QUESTIONS[subject]
    assert [page.path.name for page in pages.all_pages() if heading in page.headings] == [name]


@pytest.mark.parametrize("subject", QUESTIONS)
def test_each_question_is_two_clicks_away(subject: str) -> None:
    """README or the index links the page, or the heading itself."""
    name, _ = QUESTIONS[subject]
    direct = {link.partition("#")[0] for link in README.links} | {
        f"docs/{link.partition('#')[0]}" for link in INDEX.links
    }
    assert f"docs/{name}" in direct


def test_readme_leads_to_the_index() -> None:
    """And stays short: more is on the pages that it links."""
    assert "docs/README.md" in README.links
    assert len(README.text.splitlines()) <= MAX_README_LINES
    assert len([link for link in README.links if link.endswith(".md") or ".md#" in link]) <= MAX_README_LINKS
    assert sum(line.startswith("- ") for line in README.under("Read on").splitlines()) == 5


def test_the_index_lists_every_page() -> None:
    """A page that is not listed would be found by chance."""
    listed = {(INDEX.path.parent / link.partition("#")[0]).resolve() for link in INDEX.links}
    assert {page.path for page in pages.all_pages()} - {README.path, INDEX.path} <= listed
