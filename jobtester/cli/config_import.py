"""`jobtester config import`: the earlier Go tester's config.json as a config.toml, its defects corrected."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from jobtester.configuration import Configuration
from jobtester.errors import ConfigError
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue

_KNOWN = {
    "region", "interval", "internalWebServerPort", "internalWebServerAddress", "metricsApiEndpoint", "metricsSecret",
    "broadcasterJobEndpoint", "broadcasterCliEndpoint", "broadcasterRequestToken", "pipelines",
}  # fmt: skip
_OWN_PARAMETERS = {"model_id", "model", "image", "audio", "stream"}
# Parameters that belong to an input or a question of the Go tester: kept, they would contradict what is checked here.
_REPLACED = {
    "llm": ({"messages", "prompt", "system_msg", "history"}, "questions with known answers are asked instead"),
    "segment-anything-2": (
        {
            "box", "mask_input", "multimask_output", "normalize_coords", "point_coords", "point_labels",
            "return_logits",
        },
        "a small picture with points of its own is sent instead, and one mask asked for",
    ),
    "audio-to-text": (set(), "a wav with a known transcript is sent instead of the mp4"),
}  # fmt: skip


def import_config(options: argparse.Namespace) -> int:
    """Convert a file; an existing config.toml is kept unless --force is given."""
    source, target = Path(options.file), Path(options.path)
    if target.exists() and not options.force:
        raise ConfigError(f"{target}: exists already; give another path, or --force to replace it")
    content, remarks = convert(_read(source))
    Configuration.from_tables(content, origin=str(source), overrides=_stand_in(content))
    head = [
        f"# Made from {source.name}, the configuration of the earlier Go tester.",
        *(f"# - {one}" for one in remarks),
    ]
    try:
        target.write_text("\n".join(head) + "\n\n" + tomli_w.dumps(content), "utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from error
    print("\n".join([f"{target} written", *(f"- {one}" for one in remarks)]))  # noqa: T201
    print(f"Try it with: jobtester check -c {target}")  # noqa: T201
    return 0


def convert(old: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give tables for config.toml, and remarks on what was changed or left out."""
    remarks: list[str] = []
    content: dict[str, Any] = {"region": str(old.get("region") or "")}
    if not old.get("region"):
        content["region"] = "NYC"
        remarks.append("region was not set, the Go tester took NYC; see that the Leaderboard has it with type ai")
    if old.get("interval"):
        content["schedule"] = {"interval": str(old["interval"])}
    else:
        remarks.append(
            "the Go tester was started by cron; here [schedule] interval or cron says when, an hour by default"
        )
    server = {"host": str(old.get("internalWebServerAddress") or "0.0.0.0")}  # noqa: S104 - as before
    port = old.get("internalWebServerPort") or 7934
    content["server"] = {**server, "port": int(port) if str(port).isdecimal() else port}
    content["gateways"] = [_gateway(old, remarks)]
    content["leaderboard"] = {"url": _leaderboard(str(old.get("metricsApiEndpoint") or ""))}
    if old.get("metricsSecret"):
        remarks.append(
            "metricsSecret was left out, secrets do not belong here: set JOBTESTER_LEADERBOARD__SECRET, "
            "or /run/secrets/leaderboard__secret"
        )
    content["pipelines"] = _pipelines(old.get("pipelines") or [], remarks)
    if not content["pipelines"]:
        del content["pipelines"]
    remarks += [f"{key} means nothing here and was left out" for key in old if key not in _KNOWN]
    return content, remarks


def _gateway(old: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    gateway = {"name": "tester", "url": str(old.get("broadcasterJobEndpoint") or "")}
    if old.get("broadcasterCliEndpoint"):
        gateway["cli_url"] = str(old["broadcasterCliEndpoint"])
    token = old.get("broadcasterRequestToken")
    if token and token != "None":  # noqa: S105 - what the Go tester wrote where there was none
        remarks.append("broadcasterRequestToken was left out: set JOBTESTER_GATEWAYS__0__TOKEN")
    if gateway["url"].startswith("https:"):
        remarks.append("certificates are verified now; gateways.verify_tls = false is for a gateway with its own")
    return gateway


def _leaderboard(endpoint: str) -> str:
    """Give the base address that /api/post_stats is appended to."""
    return endpoint.rstrip("/").removesuffix("/api/post_stats")


def _pipelines(listed: list[Any], remarks: list[str]) -> dict[str, Any]:
    """Keep parameters that runners accept, and say so where something was corrected."""
    known = load_catalogue({}, Assets(None))
    found: dict[str, Any] = {}
    for entry in listed:
        if not isinstance(entry, dict):
            continue
        name = str(entry.get("name", ""))
        slug = str(entry.get("uri") or "").strip("/") or name.lower().replace(" ", "-")
        if entry.get("live") or slug not in known:
            remarks.append(
                f"{name}: there is no such pipeline here, it was left out; a [pipelines.<name>] table adds one"
            )
            continue
        given = entry.get("parameters") if isinstance(entry.get("parameters"), dict) else {}
        assert isinstance(given, dict)
        owned, instead = _REPLACED.get(slug, (set(), ""))
        replaced = sorted(key for key in given if key in owned)
        if replaced:
            remarks.append(f"{name}: {', '.join(replaced)} left out; {instead}")
        elif instead:
            remarks.append(f"{name}: {instead}")
        if slug == "llm" and "form-data" in str(entry.get("contentType", "")):
            remarks.append(f"{name}: sent as JSON; only gateways of the fork 0.0.11 want form data")
        others = {
            key: value for key, value in given.items() if key not in _OWN_PARAMETERS | owned and value is not None
        }
        kept = {key: value for key, value in others.items() if key in known[slug].parameters}
        dropped = sorted(set(others) - set(kept) - {"capture_response"})
        if dropped:
            remarks.append(
                f"{name}: {', '.join(dropped)} left out, as the built-in request does not set them; "
                f"[pipelines.{slug}.parameters] takes what your runners know"
            )
        table: dict[str, Any] = {}
        capture = entry.get("capture_response", given.get("capture_response"))
        if isinstance(capture, bool) and capture != known[slug].capture_response:
            table["capture_response"] = capture
        if kept:
            table["parameters"] = kept
        if table:
            found[slug] = table
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: has to be a JSON object, the Go tester's config.json")
    return found


def _stand_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """Give what the person still has to set, so that the rest can be checked."""
    host = urlsplit(str(content["leaderboard"]["url"])).hostname
    return {"leaderboard": {"secret": "given elsewhere"}} if host else {}
