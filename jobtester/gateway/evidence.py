"""Evidence: what the gateway's metrics, events and headers say about who served a job."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from jobtester.domain.attribution import Attribution, Kind
from jobtester.domain.exchanges import Exchange
from jobtester.domain.jobs import Job, Pair
from jobtester.domain.orchestrators import Orchestrator, Target
from jobtester.errors import GatewayError
from jobtester.gateway import series
from jobtester.gateway.client import Client
from jobtester.gateway.events import Completed, EventLog
from jobtester.gateway.identity import Known, proves, refutes

log = structlog.get_logger()

_SHARE = 10
_BYTES_PER_S = 4e6  # what is fetched passes through the event loop, and the gateway has to write it
_FORGET_FROM = 64
_LINGERS_S = 30.0
_EVENTS_S = 120.0
_NOBODY = series.Named("", "")  # whom the gateway names where its tries ran out, for whatever reason


@dataclass(slots=True)
class Life:
    """One job on one gateway, from its sending to its answer; monotonic seconds, `ended` None while in the air.

    `ended_at` is Unix seconds. `weighed` once its evidence has been gathered, `recorded` once its result is kept; what
    comes between the two is `owed` to the result.
    """

    job: Job
    sent: float
    before: series.Reading | None
    ended: float | None = None
    ended_at: float = 0.0
    round_trip_s: float = 0.0
    weighed: bool = False
    recorded: bool = False
    disconnected: bool = False
    owed: list[Testimony] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Testimony:
    """What evidence adds: a kind with its line, or a line alone; `cause` is what the HTTP answer hides."""

    kind: Kind | None
    line: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Gathered:
    """All testimonies on one job, and whether the gateway was seen to have restarted under it."""

    testimonies: tuple[Testimony, ...] = ()
    restarted: bool = False

    @property
    def cause(self) -> str:
        """Give the first cause that a testimony knows."""
        return next((one.cause for one in self.testimonies if one.cause), "")

    @property
    def proves(self) -> bool:
        """Tell whether a testimony proves who served the job."""
        return any(one.kind is Kind.PROVEN for one in self.testimonies)

    def applied_to(self, attribution: Attribution) -> Attribution:
        """Add every testimony to what is known already."""
        for one in self.testimonies:
            attribution = attribution.amended(one.kind or attribution.kind, one.line)
        return attribution


class MetricsReader:
    """Reads a gateway's /metrics after jobs, one reading for all that wait.

    Never more often than every `pause_s` seconds, and less often where there is so much to read that it would cost
    more than a tenth of the processor, or keep the event loop from jobs.
    """

    def __init__(self, client: Client, *, pause_s: float = 0.05, clock: Callable[[], float] = time.monotonic) -> None:
        """Wrap a client whose CLI port has metrics; nothing is read yet."""
        self._client = client
        self._least_pause_s = self._pause_s = pause_s
        self._clock = clock
        self._reading = asyncio.Lock()
        self.ledger = series.Ledger()
        self.problem = ""

    @property
    def latest(self) -> series.Reading | None:
        """Give the newest reading."""
        return self.ledger.latest

    async def after(self, moment: float) -> series.Reading | None:
        """Give a reading that began at or after `moment`, monotonic seconds; None if it cannot be had."""
        async with self._reading:
            if self.latest is not None and self.latest.begun >= moment:
                return self.latest
            if self.latest is not None:
                await asyncio.sleep(max(0.0, self.latest.begun + self._pause_s - self._clock()))
            return await self._read()

    async def _read(self) -> series.Reading | None:
        begun = self._clock()
        try:
            status, body = await self._client.cli("/metrics", timeout_s=5)
            if status != 200:
                raise GatewayError(f"{self._client.cli_url}/metrics: answered {status}; run the gateway with -monitor")
        except GatewayError as error:
            if not self.problem:
                log.warning("metrics_unreadable", gateway=self._client.name, problem=str(error))
            self.problem = str(error)
            return None
        if self.problem:
            log.info("metrics_readable_again", gateway=self._client.name)
            self.problem = ""
        snapshot, took_s = await asyncio.to_thread(_timed, body, begun, self.ledger.lines)
        self._pause_s = max(self._least_pause_s, _SHARE * took_s, len(body) / _BYTES_PER_S)
        return self.ledger.take(snapshot)


@dataclass(slots=True)
class Evidence:
    """Collects and weighs what can be known of one gateway's jobs."""

    gateway: str
    metrics: MetricsReader | None
    events: EventLog | None
    known: Known = field(default_factory=lambda: Known(()))
    _lives: defaultdict[Pair, list[Life]] = field(default_factory=lambda: defaultdict(list))
    _in_air: Counter[Pair] = field(default_factory=Counter)
    _last_end: dict[Pair, float] = field(default_factory=dict)
    _forget_at: defaultdict[Pair, int] = field(default_factory=lambda: defaultdict(lambda: _FORGET_FROM))

    async def begin(self, orchestrators: Iterable[Orchestrator]) -> None:
        """Start a tick: who may be named, and how the metrics stand before anything is sent."""
        self.known = Known(orchestrators)
        self._lives.clear()
        self._in_air.clear()
        self._last_end.clear()
        self._forget_at.clear()
        if self.metrics is not None:
            await self.metrics.after(time.monotonic())

    @property
    def available(self) -> bool:
        """Tell whether there is a source at all that could prove something."""
        readable = self.metrics is not None and self.metrics.latest is not None and not self.metrics.problem
        return readable or self.events is not None

    def sent(self, job: Job, now: float) -> Life:
        """Note that a job leaves, with the newest reading before it."""
        life = Life(job, now, self.metrics.latest if self.metrics is not None else None)
        self._forget(job.pair)
        self._lives[job.pair].append(life)
        self._in_air[job.pair] += 1
        return life

    def ended(self, life: Life, exchange: Exchange) -> None:
        """Note that a job has its answer."""
        pair = life.job.pair
        self._in_air[pair] -= 1
        self._last_end[pair] = max(exchange.ended, self._last_end.get(pair, exchange.ended))
        life.ended = exchange.ended
        life.disconnected = exchange.disconnected
        life.round_trip_s = exchange.round_trip_s
        life.ended_at = exchange.started_at + exchange.round_trip_s

    def dropped(self, life: Life) -> None:
        """Forget a job whose request ended in an error of the tester's own."""
        self._in_air[life.job.pair] -= 1
        self._lives[life.job.pair].remove(life)

    def _forget(self, pair: Pair) -> None:
        """Let go of jobs that were weighed and ended before anything that is still to be weighed began."""
        lives = self._lives[pair]
        if len(lives) < self._forget_at[pair]:
            return
        latest = self.metrics.latest.begun if self.metrics is not None and self.metrics.latest is not None else 0.0
        begun = [one.before.begun if one.before is not None else one.sent for one in lives if not one.weighed]
        horizon = min([latest, *begun])
        events_since = time.time() - _EVENTS_S if self.events is not None else float("inf")
        self._lives[pair] = [
            one
            for one in lives
            if not one.weighed or one.ended is None or _over(one) >= horizon or one.ended_at >= events_since
        ]
        self._forget_at[pair] = max(_FORGET_FROM, 2 * len(self._lives[pair]))

    def separable(self, pair: Pair) -> bool:
        """Tell whether a job of this pair, sent now, could be told apart from every other."""
        since = float("inf")
        if self.metrics is not None and self.metrics.latest is not None and not self.metrics.problem:
            since = self.metrics.latest.begun
        return not self._in_air[pair] and self._last_end.get(pair, float("-inf")) <= since

    async def gather(self, life: Life, exchange: Exchange) -> Gathered:
        """Collect what metrics and headers say of a job that has been answered; waits for one reading at most."""
        found: list[Testimony] = []
        restarted = False
        if self.metrics is not None and life.before is not None:
            after = await self.metrics.after(exchange.ended)
            if after is not None:
                restarted = bool(after.started and life.before.started and abs(after.started - life.before.started) > 1)
                if not restarted:
                    moved = self.metrics.ledger.since(life.before, life.job.pair)
                    found += self._from_metrics(life, exchange, moved, life.before.begun)
        header = exchange.headers.get("x-orchestrator-url", "")
        if life.job.capability.byoc and header:
            found.append(self._named(life.job.target, header, "", f"X-Orchestrator-Url says {header}"))
        return Gathered(tuple(found), restarted)

    async def told(self, life: Life, gathered: Gathered, *, wait: bool) -> Gathered:
        """Add what events say of a job; `wait` says that one that is still to come would change what it came to."""
        if self.events is not None:
            byoc = life.job.capability.byoc
            events = await self.events.about(life.job.pair, life.ended_at, life.round_trip_s, byoc=byoc, wait=wait)
            if len(events) == 1:
                gathered = replace(gathered, testimonies=(*gathered.testimonies, *self._from_event(life, events[0])))
        life.weighed = True
        return gathered

    def recorded(self, life: Life) -> list[Testimony]:
        """Note that a job's result is kept; give what has come since its evidence was weighed."""
        life.recorded, owed = True, life.owed
        life.owed = []
        return owed

    def late(self, event: Completed, *, window_s: float = 60.0) -> tuple[str, Testimony] | None:
        """Weigh an event that has just come: give the id of the one kept result it is about, and what it says.

        What is about a job whose result is not kept yet waits for that.
        """
        if self.events is None:
            return None
        lives = (
            [life for pair, lives in self._lives.items() if pair.pipeline == event.pair.pipeline for life in lives]
            if event.byoc
            else self._lives.get(event.pair, [])
        )
        fitting = [
            life
            for life in lives
            if life.ended is not None
            and event.arrived - life.ended_at < window_s
            and self.events.fits(event, life.job.pair, life.ended_at, life.round_trip_s, byoc=life.job.capability.byoc)
        ]
        if len(fitting) != 1 or not fitting[0].weighed:  # what is not weighed yet will be, with this
            return None
        life, testimonies = fitting[0], self._from_event(fitting[0], event)
        if not life.recorded:
            life.owed += testimonies
            return None
        return (life.job.id, testimonies[0]) if testimonies else None

    def _from_metrics(self, life: Life, exchange: Exchange, moved: series.Change, since: float) -> list[Testimony]:
        """Weigh what moved in the metrics since the reading before the job, which began at `since`.

        A job that passed made its server's series move. One that failed moved an error series only if the connection
        between gateway and orchestrator broke; a line without an orchestrator is written whenever the tries run out,
        and proves nothing. So if ours alone moved, it was ours; if ours did not move and somebody else's did, it was
        not.
        """
        passed = exchange.looks_passed
        names = (moved.passed if passed else frozenset(moved.failed)) - {_NOBODY}
        target = life.job.target
        means = {name: self.known.meant(name.uri, name.address) for name in names}
        ours = [name for name, meant in means.items() if proves(meant, target)]
        cause = "" if passed else "; ".join(dict.fromkeys(code for name in ours for code in moved.failed[name] if code))
        what = "success" if passed else "error"
        if ours and len(ours) == len(names) and (passed or not self._beside(life, since)):
            return [Testimony(Kind.PROVEN, f"metric: the {what} series of {ours[0].uri} moved, and no other", cause)]
        if ours:
            return [Testimony(None, f"metric: the {what} series of {ours[0].uri} moved, among others", cause)]
        foreign = [name for name, meant in means.items() if refutes(meant, target)]
        others = self._beside(life, since)
        unexplained = [name for name in foreign if not means[name] & others]
        if unexplained and len(foreign) == len(names):
            name = unexplained[0]
            return [Testimony(Kind.REFUTED, f"metric: the {what} series of {name.uri} {name.address} moved instead")]
        if passed and foreign and len(foreign) == len(names):
            line = "metric: success series of others moved, this orchestrator's did not"
            return [Testimony(Kind.MISSING if not self._exact(life) else None, line)]
        return []

    def _exact(self, life: Life) -> bool:
        """Tell whether the job was certainly alone for its pair while in the air, whatever moved before."""
        end = life.ended if life.ended is not None else float("inf")
        return not any(
            one is not life and one.sent <= end and (one.ended is None or one.ended >= life.sent)
            for one in self._lives[life.job.pair]
        )

    def _beside(self, life: Life, since: float) -> set[Target]:
        """Give the targets of other jobs of the pair that were in the air since the reading before this job."""
        return {
            one.job.target
            for one in self._lives[life.job.pair]
            if one is not life and (one.ended is None or _over(one) >= since)
        }

    def _from_event(self, life: Life, event: Completed) -> list[Testimony]:
        """Weigh an event that fits this job; it says nothing of who served if it fits another job as well."""
        assert self.events is not None
        rivals = [
            one
            for one in self._lives[life.job.pair]
            if one is not life
            and one.ended is not None
            and self.events.fits(event, one.job.pair, one.ended_at, one.round_trip_s, byoc=event.byoc)
        ]
        if rivals:
            return []
        cause = "" if event.success or _says_nothing(event.error) else event.error
        if not event.uri and not event.address:
            return [Testimony(None, f"event: {cause}", cause)] if cause else []
        return [self._named(life.job.target, event.uri, event.address, f"event: served by {event.uri}", cause)]

    def _named(self, target: Target, uri: str, address: str, line: str, cause: str = "") -> Testimony:
        meant = self.known.meant(uri, address)
        if proves(meant, target):
            return Testimony(Kind.PROVEN, line, cause)
        if refutes(meant, target):
            return Testimony(Kind.REFUTED, f"{line}, which is another orchestrator", cause)
        return Testimony(None, f"{line}, which is nobody known for certain", cause)


def _over(life: Life) -> float:
    """Return when a job that has ended moves no more series: a gateway counts one that was left behind only later."""
    assert life.ended is not None
    return life.ended + (_LINGERS_S if life.disconnected else 0.0)


def _says_nothing(error: str) -> bool:
    """Whether an error is what a gateway writes whenever its tries run out, for whatever reason."""
    return "no orchestrators available" in error.lower()


def _timed(body: bytes, begun: float, before: frozenset[int]) -> tuple[series.Snapshot, float]:
    """Read metrics and give how many seconds that took."""
    began = time.perf_counter()
    return series.read(body, begun, before), time.perf_counter() - began
