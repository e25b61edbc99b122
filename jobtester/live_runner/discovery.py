"""Ask every known orchestrator which apps it serves itself: `GET {service URI}/discovery` (docs/live-runner.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import aiohttp
import structlog

from jobtester.domain.orchestrators import Orchestrator, parse_endpoint
from jobtester.http import BodyTooLargeError
from jobtester.live_runner.client import REDIRECTS, IncompleteAnswerError, LiveRunnerClient
from jobtester.live_runner.listing import RunnerListing, parse_directory, parse_listing

log = structlog.get_logger()

_MAX_BYTES = 2**20
_MAX_INLINE_BYTES = 64 * 1024  # more is parsed in a thread
_MAX_PROBLEMS_LOGGED = 5
_NETWORK_ERRORS = (OSError, TimeoutError, ValueError, aiohttp.ClientError)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunnerDiscovery:
    """Asks orchestrators side by side, at most `parallel` at a time, each for `timeout_s` seconds at most.

    `urls` are further service URIs to ask. `directories` are addresses that list the runners of several orchestrators,
    for those that do not answer themselves.
    """

    client: LiveRunnerClient
    timeout_s: float = 5.0
    max_runners: int = 200
    parallel: int = 32
    urls: Sequence[str] = ()
    directories: Sequence[str] = ()

    async def add_runners(
        self, orchestrators: Sequence[Orchestrator], configured: Sequence[Orchestrator] = ()
    ) -> list[Orchestrator]:
        """Return the orchestrators, each with the apps that it serves itself among its capabilities.

        Those of `urls` that are not among them come last, with the address that `configured` has for their service URI,
        else with none. Never raises for what the network does. An orchestrator that does not answer, or has no such
        list, serves none.
        """
        candidates = [*orchestrators, *self._list_further(orchestrators, configured)]
        slots = asyncio.Semaphore(self.parallel)
        service_uris = {orchestrator.service_uri for orchestrator in candidates if orchestrator.service_uri}

        async def ask(service_uri: str) -> tuple[str, RunnerListing]:
            async with slots:
                return service_uri, await self.list_runners(service_uri)

        answers, by_directory = await asyncio.gather(
            asyncio.gather(*map(ask, service_uris)), self._read_directories(service_uris)
        )
        # What an orchestrator says itself is newer than any directory.
        listings = {uri: listing if listing.is_answered else by_directory.get(uri, listing) for uri, listing in answers}
        count = sum(len(listing.capabilities) for listing in listings.values())
        log.info("live_runners_discovered", orchestrators=len(service_uris), runners=count)
        extended = [_add_listing(orchestrator, listings.get(orchestrator.service_uri)) for orchestrator in candidates]
        # A configured URL without an address and without runners would be a row of nothing on every page.
        return [orchestrator for orchestrator in extended if orchestrator.address or orchestrator.capabilities]

    async def list_runners(self, service_uri: str) -> RunnerListing:
        """Return what one orchestrator lists; nothing where it does not answer, or has no such list."""
        base = service_uri.strip().rstrip("/")
        if "://" not in base:
            base = f"https://{base}"
        try:
            status, body = await self.client.get(f"{base}/discovery", timeout_s=self.timeout_s, max_bytes=_MAX_BYTES)
        except (BodyTooLargeError, IncompleteAnswerError) as error:
            listing = RunnerListing(problems=(str(error),), is_answered=True)
        except _NETWORK_ERRORS as error:
            # Most orchestrators are of a version without live runners, and some are down: neither is worth a warning.
            log.debug("live_runners_not_listed", service_uri=base, problem=str(error) or type(error).__name__)
            return RunnerListing()
        else:
            if status in REDIRECTS:
                problem = f"the list of live runners is at another URL (HTTP status {status}), which is not followed"
                listing = RunnerListing(problems=(problem,))
            elif status != 200:
                return RunnerListing()
            else:
                listing = await _parse(body, lambda: parse_listing(body, base, self.max_runners))
        if listing.problems:
            _log_problems(base, listing)
        return listing

    async def _read_directories(self, service_uris: set[str]) -> dict[str, RunnerListing]:
        """Return what the directories list, by service URI; the first that lists an orchestrator counts."""
        by_endpoint: dict[Hashable, str] = {
            endpoint: uri for uri in service_uris if (endpoint := parse_endpoint(uri)) is not None
        }
        directories = await asyncio.gather(*(self._read_directory(url, by_endpoint) for url in self.directories))
        merged: dict[str, RunnerListing] = {}
        for listings in directories:
            merged = {**listings, **merged}
        return merged

    async def _read_directory(self, url: str, service_uris: Mapping[Hashable, str]) -> dict[str, RunnerListing]:
        listings: dict[str, RunnerListing] = {}
        try:
            status, body = await self.client.get_configured(url, timeout_s=self.timeout_s, max_bytes=_MAX_BYTES)
        except _NETWORK_ERRORS as error:
            problem = str(error) or type(error).__name__
        else:
            problem = f"HTTP status {status}"
            if status == 200:
                listings, problem = await _parse(body, lambda: parse_directory(body, service_uris, self.max_runners))
        if problem:
            log.warning("live_runner_directory_unusable", url=url, problem=problem)
        for service_uri, listing in listings.items():
            if listing.problems:
                _log_problems(service_uri, listing, directory=url)
        return listings

    def _list_further(
        self, orchestrators: Sequence[Orchestrator], configured: Sequence[Orchestrator]
    ) -> list[Orchestrator]:
        """Return the orchestrators of `urls` that discovery did not name, each once."""
        seen = {parse_endpoint(orchestrator.service_uri) for orchestrator in orchestrators}
        addresses = {parse_endpoint(orchestrator.service_uri): orchestrator.address for orchestrator in configured}
        further = []
        for url in self.urls:
            endpoint = parse_endpoint(url)
            if endpoint not in seen:
                seen.add(endpoint)
                further.append(Orchestrator(addresses.get(endpoint, ""), url))
        return further


async def _parse(body: bytes, parse: Callable[[], T]) -> T:
    return await asyncio.to_thread(parse) if len(body) > _MAX_INLINE_BYTES else parse()


def _add_listing(orchestrator: Orchestrator, listing: RunnerListing | None) -> Orchestrator:
    if listing is None:
        return orchestrator
    capabilities = (*orchestrator.capabilities, *listing.capabilities)
    return replace(orchestrator, capabilities=capabilities, has_runner_list=listing.is_answered)


def _log_problems(service_uri: str, listing: RunnerListing, directory: str = "") -> None:
    log.warning(
        "live_runners_unusable",
        service_uri=service_uri,
        count=len(listing.problems),
        problems=listing.problems[:_MAX_PROBLEMS_LOGGED],
        **({"directory": directory} if directory else {}),
    )
