"""`jobtester config import`: convert the earlier Go tester's config.json to a config.toml, its defects corrected."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from jobtester.cli.config import write_new_file
from jobtester.configuration import Configuration
from jobtester.errors import ConfigError
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.definition import PipelineDefinition

_KNOWN_KEYS = {
    "region", "interval", "internalWebServerPort", "internalWebServerAddress", "metricsApiEndpoint", "metricsSecret",
    "broadcasterJobEndpoint", "broadcasterCliEndpoint", "broadcasterRequestToken", "pipelines",
}  # fmt: skip
_OWN_PARAMETERS = {"model_id", "model", "image", "audio", "stream"}
# Parameters that belong to an input or a question of the Go tester: kept, they would contradict what is checked here.
_REPLACED_PARAMETERS = {
    "llm": ({"messages", "prompt", "system_msg", "history"}, "questions with known answers are asked instead"),
    "segment-anything-2": (
        {
            "box", "mask_input", "multimask_output", "normalize_coords", "point_coords", "point_labels",
            "return_logits",
        },
        "a small picture with points of its own is sent instead, and one mask is requested",
    ),
    "audio-to-text": (set(), "a wav with a known transcript is sent instead of the mp4"),
}  # fmt: skip


def import_config(options: argparse.Namespace) -> int:
    """Convert a file. Raises ConfigError if it cannot be read, or if the target exists and --force is not set."""
    source = Path(options.file)
    content, remarks = convert(_read_json(source))
    # The secret does not belong into the file, so that the person still has to set it; all else is checked now.
    host = urlsplit(str(content["leaderboard"]["url"])).hostname
    placeholders = {"leaderboard": {"secret": "set elsewhere"}} if host else {}
    Configuration.from_tables(content, origin=str(source), overrides=placeholders)
    header = [
        f"# Made from {source.name}, the configuration of the earlier Go tester.",
        *(f"# - {remark}" for remark in remarks),
    ]
    target = write_new_file(options.path, "\n".join(header) + "\n\n" + tomli_w.dumps(content), force=options.force)
    print("\n".join([f"{target} written", *(f"- {remark}" for remark in remarks)]))  # noqa: T201
    print(f"Check it: jobtester check -c {target}")  # noqa: T201
    return 0


def convert(old: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the tables of a config.toml, and remarks on what was changed or left out."""
    remarks: list[str] = []
    content: dict[str, Any] = {"region": str(old.get("region") or "")}
    if not old.get("region"):
        content["region"] = "NYC"
        remarks.append("region was not set, and the Go tester used NYC; check that the Leaderboard has it with type ai")
    if old.get("interval"):
        content["schedule"] = {"interval": str(old["interval"])}
    else:
        remarks.append(
            "the Go tester was started by cron; here [schedule] interval or cron sets the time, an hour by default"
        )
    host = str(old.get("internalWebServerAddress") or "0.0.0.0")  # noqa: S104 - the Go tester's default
    port = old.get("internalWebServerPort") or 7934
    content["server"] = {"host": host, "port": int(port) if str(port).isdecimal() else port}
    content["gateways"] = [_convert_gateway(old, remarks)]
    endpoint = str(old.get("metricsApiEndpoint") or "")
    content["leaderboard"] = {"url": endpoint.rstrip("/").removesuffix("/api/post_stats")}
    if old.get("metricsSecret"):
        remarks.append(
            "metricsSecret was left out, secrets do not belong here: set JOBTESTER_LEADERBOARD__SECRET, "
            "or /run/secrets/leaderboard__secret"
        )
    definitions = load_catalogue({}, Assets(None))
    pipelines: dict[str, Any] = {}
    for entry in old.get("pipelines") or []:
        if isinstance(entry, dict):
            pipelines |= _convert_pipeline(entry, definitions, remarks)
    if pipelines:
        content["pipelines"] = pipelines
    remarks += [f"{key} has no meaning here and was left out" for key in old if key not in _KNOWN_KEYS]
    return content, remarks


def _convert_gateway(old: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    gateway = {"name": "tester", "url": str(old.get("broadcasterJobEndpoint") or "")}
    if old.get("broadcasterCliEndpoint"):
        gateway["cli_url"] = str(old["broadcasterCliEndpoint"])
    token = old.get("broadcasterRequestToken")
    if token and token != "None":  # noqa: S105 - what the Go tester wrote where there was none
        remarks.append("broadcasterRequestToken was left out: set JOBTESTER_GATEWAYS__0__TOKEN")
    if gateway["url"].startswith("https:"):
        remarks.append("certificates are verified now; gateways.verify_tls = false is for a gateway with its own")
    return gateway


def _convert_pipeline(
    entry: Mapping[str, Any], definitions: Mapping[str, PipelineDefinition], remarks: list[str]
) -> dict[str, Any]:
    """Return the table of a pipeline by its name, empty if the built-in definition needs no change."""
    name = str(entry.get("name", ""))
    # Some files have only one of the two, and names are written with spaces and capitals.
    slug = str(entry.get("uri") or "").strip("/") or name.lower().replace(" ", "-")
    if entry.get("live") or slug not in definitions:
        remarks.append(f"{name}: no pipeline of this name is built in, it was left out; add a [pipelines.<name>] table")
        return {}
    definition = definitions[slug]
    parameters = entry.get("parameters") if isinstance(entry.get("parameters"), dict) else {}
    assert isinstance(parameters, dict)
    replaceable, replacement = _REPLACED_PARAMETERS.get(slug, (set(), ""))
    if replaced := sorted(key for key in parameters if key in replaceable):
        remarks.append(f"{name}: {', '.join(replaced)} left out; {replacement}")
    elif replacement:
        remarks.append(f"{name}: {replacement}")
    if slug == "llm" and "form-data" in str(entry.get("contentType", "")):
        remarks.append(f"{name}: sent as JSON; only gateways of the fork 0.0.11 need form data")
    others = {
        key: value
        for key, value in parameters.items()
        if key not in _OWN_PARAMETERS | replaceable and value is not None
    }
    kept = {key: value for key, value in others.items() if key in definition.parameters}
    # A runner refuses parameters that it does not know, and the orchestrator would be blamed for it.
    if dropped := sorted(set(others) - set(kept) - {"capture_response"}):
        remarks.append(
            f"{name}: {', '.join(dropped)} left out, as the built-in request does not set them; "
            f"[pipelines.{slug}.parameters] takes what your runners know"
        )
    table: dict[str, Any] = {}
    capture = entry.get("capture_response", parameters.get("capture_response"))
    if isinstance(capture, bool) and capture != definition.capture_response:
        table["capture_response"] = capture
    if kept:
        table["parameters"] = kept
    return {slug: table} if table else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: has to be a JSON object, the Go tester's config.json")
    return content
