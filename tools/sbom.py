"""Print what an image contains as a CycloneDX document: `python -m tools.sbom IMAGE`, run by `make sbom`.

It lists the Python packages and the Debian packages that the image itself reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_PYTHON_PACKAGES = """
import importlib.metadata, json
packages = [distribution.metadata for distribution in importlib.metadata.distributions()]
print(json.dumps([[p["Name"], p["Version"], p.get("License-Expression") or ""] for p in packages]))
"""


def main() -> None:
    """Print the document for the image that the command line names."""
    image = sys.argv[1] if len(sys.argv) > 1 else "livepeer-job-tester"
    details = json.loads(_run("docker", "image", "inspect", image))[0]
    python = json.loads(_run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", _PYTHON_PACKAGES))
    form = "${Package}\t${Version}\n"
    debian = _run("docker", "run", "--rm", "--entrypoint", "dpkg-query", image, "--show", f"--showformat={form}")
    components = [_component("pypi", name.lower(), version, license_) for name, version, license_ in python]
    components += [_component("deb/debian", *line.split("\t")) for line in debian.splitlines()]
    labels = details["Config"]["Labels"]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": labels["org.opencontainers.image.title"],
                "version": labels["org.opencontainers.image.version"],
                "hashes": [{"alg": "SHA-256", "content": details["Id"].removeprefix("sha256:")}],
            }
        },
        "components": sorted(components, key=lambda component: str(component["purl"])),
    }
    print(json.dumps(document, indent=1))  # noqa: T201 - the output of the command


def _component(kind: str, name: str, version: str, license_: str = "") -> dict[str, Any]:
    """Return one package. `kind`: the type of its package URL."""
    component: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}/{name}@{version}",
    }
    if license_:
        component["licenses"] = [{"expression": license_}]
    return component


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - no user input


if __name__ == "__main__":
    main()
