"""Every spelling of a service URI means the same node, and different nodes never become one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.domain.orchestrators import Orchestrator, parse_endpoint
from jobtester.gateway.orchestrator_index import OrchestratorIndex, proves, refutes

# Each row is one host and port, in ways in which a registry, a gateway or an orchestrator itself may write it.
SAME = [
    ["https://o.example:8935", "https://O.EXAMPLE:8935/", "o.example:8935", "http://o.example:8935", " https://o.example:8935\n",
     "https://o.example.:8935", "https://o.example:8935/path/to?x=1#y", "https://user:p%40ss@o.example:8935",
     "HTTPS://o.example:8935", "https://o.example:08935"],
    ["https://o.example", "https://o.example:443", "o.example", "https://o.example:443//", "https://o.example:", "http://o.example:443"],
    ["http://o.example", "http://o.example:80/", "http://u@O.example.", "o.example:80"],
    ["https://[2001:db8::1]:8935", "https://[2001:DB8:0:0:0:0:0:1]:8935/", "[2001:0db8::0001]:8935", "https://u@[2001:db8::1]:8935/x"],
    ["https://[2001:db8::1]", "https://[2001:db8:0::1]:443", "[2001:db8::1]"],
    ["https://bücher.example:8935", "https://BÜCHER.example:8935", "https://xn--bcher-kva.example:8935",
     "https://XN--BCHER-KVA.example:8935", "bu\u0308cher.example:8935"],
    ["https://192.0.2.7:8935", "192.0.2.7:8935/", "http://a:b@192.0.2.7:8935"],
]  # fmt: skip
DIFFERENT = [
    "https://o.example:8935", "https://o.example", "http://o.example", "https://o.example:8936", "https://oo.example:8935",
    "https://o.example.org:8935", "https://a.o.example:8935", "https://[2001:db8::1]:8935", "https://[2001:db8::2]:8935",
    "https://strasse.example:8935", "https://straße.example:8935", "https://bücher.example:8935", "https://bucher.example:8935",
    "https://192.0.2.7:8935", "https://192.0.2.70:8935", "https://o.example:8935@evil.example:8935",
]  # fmt: skip
NOWHERE = [
    "", " ", "https://", "https:///path", "https://:8935", "https://.:8935", "https://o.example:0", "https://o.example:65536",
    "https://o.example:-1", "https://o.example:x", "https://[::1", "https://[o.example]:1", "https://user@", "https://o.example:８９３５",
]  # fmt: skip
A, B = "0x" + "a" * 40, "0x" + "b" * 40


@pytest.mark.parametrize("ways", SAME, ids=[row[0] for row in SAME])
def test_one_node_has_many_spellings(ways: list[str]) -> None:
    """Each of them is the same host and port, proves its own operator and refutes another."""
    assert len({parse_endpoint(way) for way in ways}) == 1
    for registered, reported in itertools.permutations(ways, 2):
        index = OrchestratorIndex([Orchestrator(A, registered), Orchestrator(B, "https://b.example:8935")])
        meant = index.find(reported, "")
        assert proves(meant, Orchestrator(A, registered).target), (registered, reported)
        assert refutes(meant, Orchestrator(B, "https://b.example:8935").target)


def test_different_nodes_stay_different() -> None:
    """Nobody is credited with what a neighbor in name or number did."""
    orchestrators = [Orchestrator(f"0x{number:040x}", uri) for number, uri in enumerate(DIFFERENT)]
    index = OrchestratorIndex(orchestrators)
    for orchestrator in orchestrators:
        assert index.find(orchestrator.service_uri, "") == {orchestrator.target}


@pytest.mark.parametrize("uri", NOWHERE)
def test_what_names_no_host_means_nobody(uri: str) -> None:
    """As a service URI or in evidence: no crash, and the address alone decides."""
    assert parse_endpoint(uri) is None
    index = OrchestratorIndex([Orchestrator(A, uri), Orchestrator(B, "https://b.example:8935")])
    assert index.find(uri, "") == frozenset()
    assert index.find(uri, A.upper().replace("X", "x")) == {(A, uri)}


def test_a_shared_endpoint_neither_proves_nor_refutes() -> None:
    """One host and port registered by two operators: neither can be distinguished from the other."""
    first, second = Orchestrator(A, "https://o.example:8935"), Orchestrator(B, "https://O.example:8935/")
    index = OrchestratorIndex([first, second])
    meant = index.find("o.example:8935", "")
    assert meant == {first.target, second.target}
    for orchestrator in (first, second):
        assert not proves(meant, orchestrator.target)
        assert not refutes(meant, orchestrator.target)


def test_a_stranger_neither_proves_nor_refutes() -> None:
    """A gateway's event may name an orchestrator that we never tested."""
    orchestrator = Orchestrator(A, "https://o.example:8935", local_address="0x" + "1" * 40)
    meant = OrchestratorIndex([orchestrator]).find("https://stranger.example:8935", "0x" + "9" * 40)
    assert (proves(meant, orchestrator.target), refutes(meant, orchestrator.target)) == (False, False)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_looked_up(uri: str, address: str) -> None:
    """Whatever a stranger calls itself; and a parsed endpoint written as a URI parses to itself."""
    index = OrchestratorIndex([Orchestrator(A, uri, local_address=address), Orchestrator(B, "https://b.example")])
    index.find(uri, address)
    endpoint = parse_endpoint(uri)
    if endpoint is not None:
        host = f"[{endpoint[0]}]" if ":" in endpoint[0] else endpoint[0]
        assert parse_endpoint(f"https://{host}:{endpoint[1]}") == endpoint
