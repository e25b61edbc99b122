"""What a simulated network consists of: gateways, orchestrators, what they serve and what goes wrong."""

from __future__ import annotations

import dataclasses
import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from jobtester.simulator import faults, names

Mode = Literal["tester", "query", "stock"]
T = TypeVar("T")
Seconds = tuple[float, float]

_BUILTIN = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model an orchestrator advertises for a pipeline (its slug). `cold_s` is spent once if it is not warm."""

    pipeline: str
    model: str
    warm: bool = True
    capacity: int = 1
    price: int = 1000
    latency_s: Seconds = (0.1, 0.3)
    cold_s: float = 1.0


@dataclass(frozen=True, slots=True)
class ByocSpec:
    """An external capability (37) an orchestrator advertises; `model` may be empty."""

    capability: str
    model: str = ""
    capacity: int = 1
    price: int = 2500
    latency_s: Seconds = (0.1, 0.3)


@dataclass(frozen=True, slots=True)
class OrchestratorSpec:
    """One advertised node. Several may share an address; an empty `service_uri` cannot be reached by anybody.

    `fault` is one of `faults.NAMES`, limited to `fault_pipelines` (slugs or capabilities) if those are given.
    `down`: no answer to info calls at all.
    """

    address: str
    local_address: str = ""
    service_uri: str = ""
    models: tuple[ModelSpec, ...] = ()
    byoc: tuple[ByocSpec, ...] = ()
    info_s: Seconds = (0.003, 0.003)
    fault: str = ""
    fault_pipelines: tuple[str, ...] = ()
    fault_probability: float = 1.0
    down: bool = False


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """A gateway and how it deviates from the usual, in seconds. `nobody` is its answer when none is selectable."""

    name: str
    mode: Mode = "tester"
    retry_window: float = 2.0
    max_tries: int = 20
    discovery_timeout: float = 1.0
    info_timeout: float = 6.0
    webhook_timeout: float = 3.0
    webhook_cache_s: float = 60.0
    session_s: float = 600.0
    nobody: Literal["eof", "503"] = "eof"
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


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole network. `recorded` is a getNetworkCapabilities answer given out verbatim instead of a made one."""

    name: str
    seed: int
    gateways: tuple[GatewaySpec, ...]
    orchestrators: tuple[OrchestratorSpec, ...]
    description: str = ""
    recorded: bytes = b""

    @classmethod
    def load(cls, source: str | Path) -> Scenario:
        """Read a TOML file, or a built-in scenario by its name. ValueError says which key is wrong."""
        path = Path(source)
        if not path.suffix:
            path = _BUILTIN / f"{source}.toml"
        if not path.is_file():
            raise ValueError(f"no scenario {source!r}: give a .toml file or one of {', '.join(builtin_names())}")
        try:
            return _scenario(tomllib.loads(path.read_text("utf-8")), path.stem)
        except (TypeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_capabilities(
        cls,
        path: str | Path,
        *,
        seed: int = 1,
        gateways: tuple[GatewaySpec, ...] = (),
        latency_s: Seconds = (0.05, 0.15),
    ) -> Scenario:
        """Replay a recorded getNetworkCapabilities answer, everything it advertises being served healthily."""
        from jobtester.simulator import recording

        raw = Path(path).read_bytes()
        return cls(
            name=Path(path).stem,
            seed=seed,
            gateways=gateways or (GatewaySpec(name="gateway"),),
            orchestrators=recording.orchestrators(raw, latency_s),
            description=f"the network recorded in {Path(path).name}",
            recorded=raw,
        )


def generate(
    *,
    seed: int,
    orchestrators: int,
    models_per_pipeline: int = 1,
    pipelines: tuple[str, ...] = names.BATCH,
    latency_s: Seconds = (0.0, 0.05),
    fault_share: float = 0.0,
    gateways: tuple[GatewaySpec, ...] = (GatewaySpec(name="gateway"),),
    info_s: Seconds = (0.0, 0.003),
    fault_probability: float = 0.5,
) -> Scenario:
    """Make up a network for load: every orchestrator serves every pipeline, a share of them with a random fault."""
    rng = random.Random(seed)
    models = tuple(
        ModelSpec(pipeline, f"sim/{pipeline}-{number}", latency_s=latency_s)
        for pipeline in pipelines
        for number in range(models_per_pipeline)
    )
    nodes = []
    for number in range(orchestrators):
        faulty = rng.random() < fault_share
        nodes.append(
            OrchestratorSpec(
                address=f"0x{rng.getrandbits(160):040x}",
                local_address=f"0x{rng.getrandbits(160):040x}",
                service_uri=f"https://orchestrator-{number}.sim.example:8935",
                models=models,
                info_s=info_s,
                fault=rng.choice(faults.GENERATED) if faulty else "",
                fault_probability=fault_probability,
            )
        )
    return Scenario(f"generated-{seed}", seed, gateways, tuple(nodes), f"{orchestrators} made-up orchestrators")


def builtin_names() -> list[str]:
    """List the scenarios that come with the package."""
    return sorted(path.stem for path in _BUILTIN.glob("*.toml"))


def _scenario(data: dict[str, Any], name: str) -> Scenario:
    gateways = tuple(_make(GatewaySpec, entry) for entry in data.pop("gateways", [{"name": "gateway"}]))
    orchestrators = []
    for entry in data.pop("orchestrators", []):
        entry["models"] = tuple(_make(ModelSpec, model) for model in entry.get("models", []))
        entry["byoc"] = tuple(_make(ByocSpec, capability) for capability in entry.get("byoc", []))
        orchestrators.append(_make(OrchestratorSpec, entry))
    values: dict[str, Any] = {"name": name, "seed": 1, **data}
    return Scenario(gateways=gateways, orchestrators=tuple(orchestrators), **values)


def _make(kind: type[T], entry: dict[str, Any]) -> T:
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(entry) - known)
    if unknown:
        raise TypeError(f"unknown key {unknown[0]!r} in {kind.__name__}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
