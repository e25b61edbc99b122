"""Identity: whom a name in evidence means, among the orchestrators that are known."""

from __future__ import annotations

from collections.abc import Iterable

from jobtester.domain.orchestrators import Orchestrator, Target, normalize_address, parse_endpoint

_NOBODY: frozenset[Target] = frozenset()


class OrchestratorIndex:
    """Finds orchestrators by what they say of themselves: host and port first, else either address.

    Several orchestrators may sign with one local address, so a host and port that is known outweighs an address.
    """

    def __init__(self, orchestrators: Iterable[Orchestrator]) -> None:
        """Index everybody once; looking up is then cheap."""
        self._by_endpoint: dict[tuple[str, int], frozenset[Target]] = {}
        self._by_address: dict[str, frozenset[Target]] = {}
        for one in orchestrators:
            mine = frozenset((one.target,))
            where = parse_endpoint(one.service_uri) if one.service_uri else None
            if where is not None:
                self._by_endpoint[where] = self._by_endpoint.get(where, _NOBODY) | mine
            for address in {one.address, one.local_address} - {""}:
                self._by_address[address] = self._by_address.get(address, _NOBODY) | mine

    def find(self, uri: str, address: str) -> frozenset[Target]:
        """Give everybody whom a URI and an address may mean; empty if that is nobody known."""
        where = parse_endpoint(uri) if uri else None
        if where is not None and where in self._by_endpoint:
            return self._by_endpoint[where]
        return self._by_address.get(normalize_address(address), _NOBODY)


def proves(meant: frozenset[Target], target: Target) -> bool:
    """Tell whether a name that means these targets means this one's operator and nobody else."""
    return target in meant and all(one.address == target.address for one in meant)


def refutes(meant: frozenset[Target], target: Target) -> bool:
    """Tell whether a name means somebody known, and that is not this target's operator."""
    return bool(meant) and all(one.address != target.address for one in meant)
