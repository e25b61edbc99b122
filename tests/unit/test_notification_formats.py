"""Notifications fit what Slack and Discord accept, whatever names the network advertises."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.daemon.notification import Notification
from jobtester.daemon.notification_formats import write_body
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.tick_changes import CapabilityChange, TickChanges
from jobtester.domain.tick_report import TickReport
from jobtester.errors import ConfigError
from jobtester.settings.message_template import FIELDS
from jobtester.settings.model import Settings
from jobtester.settings.operator_sections import NotifySettings
from tests.harness.chat_receivers import problems_for_discord, problems_for_slack

ADDRESS = "0x" + "a" * 40
URL = "https://tester.example"
HOSTILE = (
    "<!channel>", "<@U123>", "@everyone", "<https://evil.example|click>", "[click](https://evil.example)",
    "`code` **bold**", "a\nb", "a & b", "https://evil.example/x", "evil.example", "``` x", "\\`", "<@&1>", "x" * 900,
    '", "text": "<!here>', "<#C1>", "||spoiler||", "\u202eabc", "&lt;!channel&gt;",
)  # fmt: skip


def change(model: str, *, reason: str = "timeout", number: int = 0) -> CapabilityChange:
    """Return a capability that changed."""
    return CapabilityChange(CapabilityKey(ADDRESS, "https://o", "llm", model), f"{number:016x}", reason)


def notification(*models: str, recovered: tuple[str, ...] = (), url: str | None = URL, **fields: str) -> Notification:
    """Return a notification about models that newly fail and others that recovered."""
    report = TickReport("20261224T180000000Z", "schedule", 1.0, planned=9, finished_at=3.0, state="finished")
    for name, value in fields.items():
        setattr(report, name, value)
    changes = TickChanges(
        tuple(change(model) for model in models), tuple(change(model, reason="") for model in recovered), 4
    )
    return Notification(report, changes, "FRA", url)


def body_of(notified: Notification, **settings: str) -> str:
    """Return the body of a post."""
    return write_body(notified, NotifySettings.model_validate(settings))[0].decode()


def test_slack_and_discord_show_what_changed_with_links() -> None:
    """Title, summary, each capability with its page, its result and its reason."""
    notified = notification("big/model", recovered=("small",))
    slack = json.loads(body_of(notified, format="slack"))
    assert problems_for_slack(slack) == []
    texts = [block["text"]["text"] for block in slack["blocks"]]
    assert texts[0] == "FRA: 1 newly failing, 1 recovered"
    assert texts[1].startswith(f"<{URL}/t/20261224T180000000Z|Tick finished in 2s: 0 of 9 jobs")
    assert texts[1].endswith("4 still failing>")
    assert f"<{URL}/o/{ADDRESS}|0xaaaaaa…aaaa> `llm` `big/model` <{URL}/r/{0:016x}|timeout>" in texts[2]
    assert texts[3].startswith("*Recovered*\n")
    discord = json.loads(body_of(notified, format="discord"))
    assert problems_for_discord(discord) == []
    embed = discord["embeds"][0]
    assert (embed["title"], embed["url"]) == (texts[0], f"{URL}/t/20261224T180000000Z")
    assert f"[0xaaaaaa…aaaa]({URL}/o/{ADDRESS}) `llm` `big/model` [timeout]({URL}/r/{0:016x})" in embed["description"]


def test_without_a_public_url_there_are_no_links() -> None:
    """The text stays, and a quiet tick says so."""
    for name in ("slack", "discord"):
        assert "https://" not in body_of(notification("m", url=None), format=name)
        assert "FRA: no change" in body_of(notification(), format=name)
        assert "FRA: tick failed" in body_of(notification(state="failed", problem="no one there"), format=name)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_mentions_or_links_anything(name: str) -> None:
    """As a model, as a pipeline, and as the problem of a tick."""
    notified = notification(name, recovered=(name,), problem=name, state="failed")
    assert problems_for_slack(json.loads(body_of(notified, format="slack"))) == []
    assert problems_for_discord(json.loads(body_of(notified, format="discord"))) == []
    text = body_of(notified, format="template", template="$failing|$recovered|$problem")
    for part in ("<", ">", "@", "://", "](", "evil.example", "`"):
        assert part not in text
    whole = json.loads(
        body_of(notified, format="template", template='{"text": "$failing $problem"}', template_type="json")
    )
    assert whole.keys() == {"text"}


@given(st.lists(st.text(max_size=1_000), max_size=60), st.text(max_size=2_000))
def test_every_message_fits(models: list[str], problem: str) -> None:
    """Any number of changes with any names stays within the receivers' limits, and says how many it leaves out."""
    notified = notification(*models, recovered=tuple(models), problem=problem, state="failed")
    slack = body_of(notified, format="slack")
    assert problems_for_slack(json.loads(slack)) == []
    assert problems_for_discord(json.loads(body_of(notified, format="discord"))) == []
    if len(models) > 20:
        assert "more" in slack
    assert len(json.loads(body_of(notified))["failing"]) == len(models)
    json.loads(body_of(notified, format="template", template='["$failing"]', template_type="json"))


def test_the_receivers_refuse_what_is_wrong() -> None:
    """They notice a mention, a foreign link and an overlong block: the tests above are worth something."""
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "<!channel>"}}
    assert problems_for_slack({"text": "x", "blocks": [section]})
    section["text"] = {"type": "mrkdwn", "text": "x" * 3_001}
    assert problems_for_slack({"text": "x", "blocks": [section]})
    assert problems_for_slack({"blocks": []})
    embed = {"title": "t", "description": "[x](https://evil.example)", "color": 1}
    assert problems_for_discord({"embeds": [embed], "allowed_mentions": {"parse": []}})
    assert problems_for_discord({"content": "x", "allowed_mentions": {}})
    assert problems_for_discord({"content": "x" * 2_001, "allowed_mentions": {"parse": []}})


def test_json_is_a_tick_with_its_changes() -> None:
    """The fields of /api/ticks/{id} stay where they are; counts are of all, lists of the first two hundred."""
    document = json.loads(body_of(notification(*map(str, range(300)))))
    assert document["id"] == "20261224T180000000Z"
    assert document["region"] == "FRA"
    assert (document["failing_count"], len(document["failing"])) == (300, 200)
    assert document["failing"][0]["result_url"] == f"{URL}/r/{0:016x}"


def test_a_template_has_every_documented_field() -> None:
    """Each is filled in; the type of the content is what the template makes."""
    template = " ".join(f"${name}" for name in FIELDS)
    body, content_type = write_body(notification("m"), NotifySettings(format="template", template=template))
    assert b"$" not in body
    assert content_type.startswith("text/plain")
    settings = NotifySettings(format="template", template='{"a": "$region"}', template_type="json")
    assert write_body(notification("m"), settings) == (b'{"a": "FRA"}', "application/json")


@pytest.mark.parametrize(
    ("notify", "message"),
    [
        ({"format": "template"}, 'notify: format = "template" needs a template'),
        ({"format": "template", "template": "$tik"}, "notify.template: there is no field $tik; there are region, tick"),
        ({"format": "template", "template": "5 $ a"}, "notify.template: a $ is not followed by a field"),
        ({"template": '{"a": $failing}', "template_type": "json"}, "notify: template is no JSON once its fields"),
        ({"format": "teams"}, "notify.format: "),
        ({"when": "never"}, "notify.when: "),
    ],
)
def test_a_bad_template_is_refused_by_name(notify: dict[str, str], message: str) -> None:
    """At the start and not at the first tick."""
    with pytest.raises(ConfigError) as refused:
        Settings.from_tables({"gateways": [{"url": "http://g:1"}], "leaderboard": {"post": False}, "notify": notify})
    assert message in str(refused.value)
