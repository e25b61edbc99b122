"""Proxies: which way out the environment names for an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL


@dataclass(frozen=True, slots=True)
class Proxies:
    """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY said when they were looked at, once and not for each request.

    aiohttp's own `trust_env` looks at them, and at a .netrc, anew before every request, and in a thread.
    """

    named: dict[str, str]

    @classmethod
    def of_environment(cls) -> Proxies:
        """Look at the environment, names in either case."""
        return cls(getproxies_environment())

    def way(self, url: str) -> dict[str, Any]:
        """Give the arguments with which aiohttp sends a request to `url` the right way; none where there is no proxy.

        Credentials in a proxy's address are given to the proxy alone.
        """
        if not self.named:
            return {}
        parts = urlsplit(url)
        named = self.named.get(parts.scheme)
        host = parts.netloc.rpartition("@")[2]
        if named is None or proxy_bypass_environment(host, self.named):
            return {}
        return {"proxy": URL(named)}
