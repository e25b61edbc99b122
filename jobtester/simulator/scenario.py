"""Scenarios: the gateways and orchestrators of a simulated network, what they serve and what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from jobtester.simulator import faults, go_livepeer
from jobtester.simulator.live_spec import LiveContainerSpec, LiveGatewaySpec
from jobtester.simulator.service_listener import NodeState

Mode = Literal["tester", "half", "query", "stock"]
T = TypeVar("T")
SecondsRange = tuple[float, float]
AppKind = Literal["hello-world", "openai-chat", "openai-embeddings", "fal-text-to-image", "echo", "video"]

_BUILTIN_DIR = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that an orchestrator advertises for a pipeline. A model that is not warm takes `cold_s` once to load.

    A language model spends the first `thinking_tokens` of its limit on thoughts.
    """

    pipeline: str
    model: str
    warm: bool = True
    capacity: int = 1
    price: int = 1000
    latency_s: SecondsRange = (0.1, 0.3)
    cold_s: float = 1.0
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ByocSpec:
    """An external capability that an orchestrator advertises; `model` may be empty.

    A language model spends the first `thinking_tokens` of its limit on thoughts.
    """

    capability: str
    model: str = ""
    capacity: int = 1
    price: int = 2500
    latency_s: SecondsRange = (0.1, 0.3)
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """A runner that an orchestrator serves itself, without a gateway.

    `app_kind` is what the app behind it does; `model` is the one that it accepts, any if empty. `price` is in wei per
    `unit`, where 0 is unpaid and `720p-pixel-seconds` counts seconds of 720p video. `path_kind`: `label` puts the app's
    name into its URL instead of the runner's id, `proxied` has session URLs of the form `/run/<letters>`.
    `health_gap`: after the first number of seconds it is unhealthy for the second, again and again; (0, 0) is never.
    `payment_interval_s`: how often a price by time is paid for. `fault` is one of `faults.RUNNER`.
    """

    app: str
    version: str = ""
    app_kind: AppKind = "hello-world"
    mode: Literal["single-shot", "persistent"] = "single-shot"
    model: str = ""
    capacity: int = 1
    price: int = 0
    unit: Literal["fixed", "seconds", "720p-pixel-seconds"] = "fixed"
    path_kind: Literal["id", "label", "proxied"] = "id"
    latency_s: SecondsRange = (0.05, 0.1)
    health_gap: SecondsRange = (0.0, 0.0)
    payment_interval_s: float = 5.0
    gpu: str = ""
    metadata: str = ""
    fault: str = ""
    fault_probability: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for a fault that no runner has."""
        if self.fault and self.fault not in faults.RUNNER:
            raise ValueError(f"unknown fault {self.fault!r} of a runner: one of {', '.join(sorted(faults.RUNNER))}")

    def scale_times(self, factor: float) -> RunnerSpec:
        """Return the same runner with all its times multiplied."""
        return dataclasses.replace(
            self,
            latency_s=_scale_range(self.latency_s, factor),
            health_gap=_scale_range(self.health_gap, factor),
            payment_interval_s=self.payment_interval_s * factor,
        )


@dataclass(frozen=True, slots=True)
class OrchestratorSpec:
    """One advertised node. Several nodes may share an address; one with an empty `service_uri` cannot be reached.

    At a `service_uri` on a loopback address the simulator really listens; port 0 is any free one.
    `fault` is one of `faults.NAMES`, limited to `fault_pipelines` (slugs or capabilities) if there are any.
    `down`: connections are refused; `frozen`: connections are accepted and stay silent. Both answer no info calls.
    `not_selectable`: slugs that it advertises though no gateway can select it for them (because of model or price).
    `version` is the go-livepeer that it runs: 0.8.6 leaks the slot of each job that fails. `slow_at_least_s` and
    `error_at_least_s` are the shortest times that the faults `slow` and `error_503` take.
    `live_runners`: it lists runners at its service URI, even if it has none; with `runners` it always does.
    """

    address: str
    local_address: str = ""
    service_uri: str = ""
    models: tuple[ModelSpec, ...] = ()
    byoc: tuple[ByocSpec, ...] = ()
    runners: tuple[RunnerSpec, ...] = ()
    live_runners: bool = False
    info_s: SecondsRange = (0.003, 0.003)
    fault: str = ""
    fault_pipelines: tuple[str, ...] = ()
    fault_probability: float = 1.0
    down: bool = False
    frozen: bool = False
    not_selectable: tuple[str, ...] = ()
    version: str = go_livepeer.LATEST_VERSION
    slow_at_least_s: float = 2.0
    error_at_least_s: float = 0.25
    live: LiveContainerSpec = dataclasses.field(default_factory=LiveContainerSpec)

    @property
    def state(self) -> NodeState:
        """How the node responds to connections."""
        if self.down or self.fault == "down":
            return "down"
        return "frozen" if self.frozen or self.fault == "frozen" else "up"

    def scale_times(self, factor: float) -> OrchestratorSpec:
        """Return the same node with all its times multiplied."""
        models = (
            dataclasses.replace(model, latency_s=_scale_range(model.latency_s, factor), cold_s=model.cold_s * factor)
            for model in self.models
        )
        return dataclasses.replace(
            self,
            models=tuple(models),
            byoc=tuple(dataclasses.replace(o, latency_s=_scale_range(o.latency_s, factor)) for o in self.byoc),
            runners=tuple(runner.scale_times(factor) for runner in self.runners),
            info_s=_scale_range(self.info_s, factor),
            slow_at_least_s=self.slow_at_least_s * factor,
            error_at_least_s=self.error_at_least_s * factor,
            live=self.live.scale_times(factor),
        )


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """A gateway, its version of go-livepeer, and how it deviates from the usual; times in seconds.

    `mode`: a `tester` gateway queries the webhook at each use, `query` uses the orchestrator that the request names,
    `stock` keeps sticky sessions, and `half` queries the webhook at each use and keeps its sessions nevertheless.
    `info_timeout`: how long a silent orchestrator delays a try. `max_price`: 0 is any price.
    `stray_delay`: how long after a client has disconnected its session is removed.
    """

    name: str
    mode: Mode = "tester"
    version: str = go_livepeer.LATEST_VERSION
    retry_window: float = 2.0
    max_tries: int = 20
    discovery_timeout: float = 1.0
    info_timeout: float = 3.0
    max_price: int = 0
    webhook_timeout: float = 3.0
    webhook_cache_s: float = 60.0
    session_s: float = 600.0
    metrics: bool = True
    events: bool = False
    event_generation: Literal[1, 2] = 1
    ai_capabilities: bool = True
    network_capabilities: bool = True
    registered: bool = True
    empty_for_s: float = 0.0
    byoc: bool = True
    retired: bool = False
    stray_delay: float = 0.02
    live: LiveGatewaySpec = dataclasses.field(default_factory=LiveGatewaySpec)

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown version."""
        go_livepeer.find_build(self.version)

    @property
    def build(self) -> go_livepeer.Build:
        """How its version behaves."""
        return go_livepeer.find_build(self.version)

    def scale_times(self, factor: float) -> GatewaySpec:
        """Return the same gateway with all its times multiplied."""
        times = ("retry_window", "discovery_timeout", "info_timeout", "webhook_cache_s", "session_s", "stray_delay")
        scaled = {name: getattr(self, name) * factor for name in times} | {"live": self.live.scale_times(factor)}
        return dataclasses.replace(self, **scaled)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole network. `recorded_capabilities` is a response of getNetworkCapabilities that is served verbatim."""

    name: str
    seed: int
    gateways: tuple[GatewaySpec, ...]
    orchestrators: tuple[OrchestratorSpec, ...]
    description: str = ""
    recorded_capabilities: bytes = b""

    def scale_times(self, factor: float) -> Scenario:
        """Return the same network with all its times multiplied, so that tests need not wait for real ones.

        The pattern of webhook queries keeps its shape while the shortest times stay above those of the machine itself.
        """
        return dataclasses.replace(
            self,
            gateways=tuple(gateway.scale_times(factor) for gateway in self.gateways),
            orchestrators=tuple(orchestrator.scale_times(factor) for orchestrator in self.orchestrators),
        )

    @classmethod
    def load(cls, source: str | Path) -> Scenario:
        """Read a TOML file, or a built-in scenario by its name. ValueError if a key is wrong."""
        path = Path(source)
        if not path.suffix:
            path = _BUILTIN_DIR / f"{source}.toml"
        if not path.is_file():
            raise ValueError(f"no scenario {source!r}: give a .toml file or one of {', '.join(builtin_names())}")
        try:
            return _parse_scenario(tomllib.loads(path.read_text("utf-8")), path.stem)
        except (TypeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_capabilities(
        cls,
        path: str | Path,
        *,
        seed: int = 1,
        gateways: tuple[GatewaySpec, ...] = (),
        latency_s: SecondsRange = (0.05, 0.15),
    ) -> Scenario:
        """Return a healthy network that serves whatever a recorded response of getNetworkCapabilities advertises."""
        raw = Path(path).read_bytes()
        return cls(
            name=Path(path).stem,
            seed=seed,
            gateways=gateways or (GatewaySpec(name="gateway"),),
            orchestrators=_recorded_orchestrators(raw, latency_s),
            description=f"the network recorded in {Path(path).name}",
            recorded_capabilities=raw,
        )


def builtin_names() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(path.stem for path in _BUILTIN_DIR.glob("*.toml"))


def _parse_scenario(data: dict[str, Any], name: str) -> Scenario:
    entries = data.pop("gateways", [{"name": "gateway"}])
    gateways = tuple(_parse_spec(GatewaySpec, entry, live=LiveGatewaySpec) for entry in entries)
    orchestrators = []
    for entry in data.pop("orchestrators", []):
        entry["models"] = tuple(_parse_spec(ModelSpec, model) for model in entry.get("models", []))
        entry["runners"] = tuple(_parse_spec(RunnerSpec, runner) for runner in entry.get("runners", []))
        entry["byoc"] = tuple(_parse_spec(ByocSpec, capability) for capability in entry.get("byoc", []))
        orchestrators.append(_parse_spec(OrchestratorSpec, entry, live=LiveContainerSpec))
    factor = float(data.pop("time_factor", 1.0))
    data = {"name": name, "seed": 1, **data, "gateways": gateways, "orchestrators": tuple(orchestrators)}
    return Scenario(**data).scale_times(factor)


def _scale_range(range_s: SecondsRange, factor: float) -> SecondsRange:
    return range_s[0] * factor, range_s[1] * factor


def _parse_spec(spec_type: type[T], entry: dict[str, Any], **tables: type[Any]) -> T:
    entry = entry | {name: _parse_spec(table_type, entry.get(name, {})) for name, table_type in tables.items()}
    keys = {field.name for field in dataclasses.fields(spec_type)}  # type: ignore[arg-type]
    unknown = sorted(set(entry) - keys)
    if unknown:
        raise TypeError(f"unknown key {unknown[0]!r} in {spec_type.__name__}")
    return spec_type(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def _recorded_orchestrators(raw: bytes, latency_s: SecondsRange) -> tuple[OrchestratorSpec, ...]:
    """Return one node per address and service URI, with the models and capabilities of all its entries.

    ValueError if `raw` is no response of getNetworkCapabilities.
    """
    try:
        entries = json.loads(raw).get("orchestrators") or []
        specs = [_recorded_spec(entry, latency_s) for entry in entries]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a getNetworkCapabilities answer: {error!r}") from error
    nodes: dict[tuple[str, str], OrchestratorSpec] = {}
    for spec in specs:
        key = (spec.address, spec.service_uri)
        node = nodes.get(key, dataclasses.replace(spec, models=(), byoc=()))
        nodes[key] = dataclasses.replace(
            node,
            models=tuple(dict.fromkeys(node.models + spec.models)),
            byoc=tuple(dict.fromkeys(node.byoc + spec.byoc)),
        )
    return tuple(nodes.values())


def _recorded_spec(entry: dict[str, Any], latency_s: SecondsRange) -> OrchestratorSpec:
    return OrchestratorSpec(
        address=entry["address"].lower(),
        local_address=(entry.get("local_address") or "").lower(),
        service_uri=entry.get("orch_uri") or "",
        models=tuple(_recorded_models(entry, latency_s)),
        byoc=tuple(_recorded_byoc(entry, latency_s)),
    )


def _recorded_models(entry: dict[str, Any], latency_s: SecondsRange) -> Iterator[ModelSpec]:
    constraints = (entry.get("capabilities") or {}).get("constraints") or {}
    for number, constraint in (constraints.get("PerCapability") or {}).items():
        slug = go_livepeer.SLUGS.get(int(number), "")
        if slug not in go_livepeer.NUMBERS or slug == "byoc":
            continue
        for model, state in (constraint.get("models") or {}).items():
            yield ModelSpec(
                pipeline=slug,
                model=model,
                warm=bool(state.get("warm")),
                capacity=max(1, int(state.get("capacity") or 0)),
                latency_s=latency_s,
            )


def _recorded_byoc(entry: dict[str, Any], latency_s: SecondsRange) -> Iterator[ByocSpec]:
    options = entry.get("capability_options") or {}
    for price in entry.get("capabilities_prices") or []:
        if price.get("capability") == go_livepeer.BYOC_NUMBER and price.get("constraint"):
            name = str(price["constraint"])
            offers = options.get(name) or [{}]
            first = offers[0] if isinstance(offers, list) and offers and isinstance(offers[0], dict) else {}
            yield ByocSpec(capability=name, model=str(first.get("model", "")), capacity=4, latency_s=latency_s)
