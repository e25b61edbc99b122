"""Assets: load the test inputs and their metadata, and check them before any orchestrator is judged by them."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jobtester.checks.base import AssetMetadata
from jobtester.checks.worker import Worker, WorkerLostError
from jobtester.errors import AssetError

MAX_SIZE = 50 * 2**20
TRUTH_FILE = "truth.toml"
_KINDS_BY_SUFFIX = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif"), "image"),
    **dict.fromkeys((".wav", ".flac", ".mp3"), "audio"),
    **dict.fromkeys((".webp", ".bmp", ".tif", ".tiff", ".avif"), "unusable image"),
    **dict.fromkeys((".mp4", ".m4a", ".ogg", ".webm"), "unusable audio"),
}
_REFUSALS = {
    "unusable image": "gateways take PNG, JPEG and GIF only; convert it",
    "unusable audio": "gateways are safe with WAV, FLAC and MP3 only; convert it",
}
_INSPECT_CPU_S = 30.0
_METADATA_TYPE: TypeAdapter[dict[str, AssetMetadata]] = TypeAdapter(dict[str, AssetMetadata])


def builtin_folder() -> Path:
    """Return the folder of the shipped test inputs: in an installed package, or in the repository."""
    installed = Path(__file__).parents[1] / "assets"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "assets"


@dataclass(frozen=True, slots=True)
class Asset:
    """One test input: its bytes and its metadata."""

    name: str
    content: bytes
    metadata: AssetMetadata


class Assets:
    """The test inputs of a folder, and the shipped ones for names that the folder does not have."""

    def __init__(self, directory: Path | str | None = None) -> None:
        self._folders = [Path(directory)] if directory else []
        self._folders.append(builtin_folder())
        self._assets: dict[str, Asset] = {}
        self._metadata_by_folder: dict[Path, dict[str, AssetMetadata]] = {}

    def get(self, name: str) -> Asset:
        """Return a test input, read and checked once. Raises AssetError that names the file and what to do."""
        # An input that cannot be processed would be charged to the orchestrators, so it must not be sent.
        if name not in self._assets:
            self._assets[name] = self._read(name)
        return self._assets[name]

    def _read(self, name: str) -> Asset:
        path = self._find(name)
        if path.stat().st_size > MAX_SIZE:
            raise AssetError(f"{path}: is larger than {MAX_SIZE // 2**20} MiB, which runners refuse; use a smaller one")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise AssetError(f"{path}: cannot be read: {error}") from error
        if not content:
            raise AssetError(f"{path}: is empty; put the file back")
        if path.parent not in self._metadata_by_folder:
            self._metadata_by_folder[path.parent] = _read_metadata(path.parent / TRUTH_FILE)
        metadata = self._metadata_by_folder[path.parent].get(path.name, AssetMetadata())
        digest = hashlib.sha256(content).hexdigest()
        if metadata.sha256 and digest != metadata.sha256:
            raise AssetError(
                f"{path}: is not the file that {TRUTH_FILE} beside it describes; put that file back, or correct "
                f"{TRUTH_FILE}"
            )
        if path.parent == builtin_folder() and metadata.sha256:
            return Asset(name, content, metadata)  # byte for byte the file that was checked when it was made
        return Asset(name, content, replace(_inspect(path, content, metadata), sha256=digest))

    def _find(self, name: str) -> Path:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise AssetError(f"{name!r}: name a file inside the assets folder")
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
        folders = " and ".join(map(str, self._folders))
        raise AssetError(f"{name}: no such file; looked in {folders}")


def _read_metadata(path: Path) -> dict[str, AssetMetadata]:
    """Return the metadata in a truth.toml by file name; empty for a folder without one."""
    try:
        table = tomllib.loads(path.read_text("utf-8")).get("files", {})
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AssetError(f"{path}: cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise AssetError(f"{path}: files has to be a table")
    for name, facts in table.items():
        if not isinstance(facts, dict):
            raise AssetError(f'{path}: files."{name}" has to be a table')
        unknown = set(facts) - {field.name for field in fields(AssetMetadata)}
        if unknown:
            raise AssetError(f'{path}: files."{name}".{min(unknown)}: no such key')
    try:
        return _METADATA_TYPE.validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(f'"{part}"' if "." in str(part) else str(part) for part in first["loc"])
        raise AssetError(f"{path}: files.{location}: {first['msg']}") from error


def _inspect(path: Path, content: bytes, metadata: AssetMetadata) -> AssetMetadata:
    """Return the metadata of a file that is not shipped, completed by decoding it. Raises AssetError."""
    kind = _KINDS_BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        return metadata
    if kind in _REFUSALS:
        raise AssetError(f"{path}: {_REFUSALS[kind]}")
    # In a process of its own: a decoder that a damaged file brings down must not take the daemon with it.
    worker = Worker.start(wall_s=2 * _INSPECT_CPU_S)
    try:
        decoded = worker.inspect(content, kind, cpu_s=_INSPECT_CPU_S)
    except WorkerLostError as lost:
        raise AssetError(f"{path}: cannot be decoded: {lost}") from lost
    finally:
        worker.stop()
    if "problem" in decoded:
        raise AssetError(f"{path}: {decoded['problem']}")
    for key, value in decoded.items():
        declared = getattr(metadata, key)
        if declared and (declared != value if isinstance(value, str) else abs(declared - value) > 0.5):
            raise AssetError(f"{path}: {key} is {value}, {TRUTH_FILE} says {declared}; correct {TRUTH_FILE}")
    return replace(metadata, **decoded)
