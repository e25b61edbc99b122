"""Assets: the test inputs and what is true of them, looked at before anybody is judged by them."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobtester.checks.base import AssetMetadata
from jobtester.checks.worker import Worker, WorkerLostError
from jobtester.errors import AssetError

MAX_SIZE = 50 * 2**20
TRUTH = "truth.toml"
_KINDS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif"), "image"),
    **dict.fromkeys((".wav", ".flac", ".mp3"), "audio"),
    **dict.fromkeys((".webp", ".bmp", ".tif", ".tiff", ".avif"), "wrong image"),
    **dict.fromkeys((".mp4", ".m4a", ".ogg", ".webm"), "wrong audio"),
}
_WRONG = {
    "wrong image": "gateways take PNG, JPEG and GIF only; convert it",
    "wrong audio": "gateways are safe with WAV, FLAC and MP3 only; convert it",
}
_INSPECT_CPU_S = 30.0
_TRUTHS: TypeAdapter[dict[str, AssetMetadata]] = TypeAdapter(dict[str, AssetMetadata])


def builtin_folder() -> Path:
    """Give the folder of the test inputs that come with the product: in an installed package, or in the repository."""
    installed = Path(__file__).parents[1] / "assets"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "assets"


@dataclass(frozen=True, slots=True)
class Asset:
    """One test input: its bytes and what is known of it."""

    name: str
    content: bytes
    metadata: AssetMetadata


class Assets:
    """The test inputs of a folder, and those that come with the product where the folder has none of the name."""

    def __init__(self, directory: Path | str | None = None) -> None:
        """Look for files in `directory` first. Nothing is read yet."""
        self._folders = [Path(directory)] if directory else []
        self._folders.append(builtin_folder())
        self._known: dict[str, Asset] = {}
        self._truths: dict[Path, dict[str, AssetMetadata]] = {}

    def get(self, name: str) -> Asset:
        """Give a test input, read and checked once.

        Raises AssetError that names the file and says what to do: an input that cannot be processed is charged to
        the orchestrators, so it must not be sent.
        """
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

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
        truth = self._truth(path)
        if truth.sha256 and hashlib.sha256(content).hexdigest() != truth.sha256:
            raise AssetError(
                f"{path}: is not the file that {TRUTH} beside it describes; put that file back, or correct {TRUTH}"
            )
        if path.parent == builtin_folder() and truth.sha256:
            return Asset(name, content, truth)  # known to be good, byte for byte
        return Asset(name, content, _inspected(path, content, truth))

    def _find(self, name: str) -> Path:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise AssetError(f"{name!r}: name a file inside the assets folder")
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
        looked = " and ".join(str(folder) for folder in self._folders)
        raise AssetError(f"{name}: no such file; looked in {looked}")

    def _truth(self, path: Path) -> AssetMetadata:
        if path.parent not in self._truths:
            self._truths[path.parent] = _truths(path.parent / TRUTH)
        return self._truths[path.parent].get(path.name, AssetMetadata())


def _truths(path: Path) -> dict[str, AssetMetadata]:
    """Read a truth.toml; a folder without one has nothing known of its files."""
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
        unknown = set(facts) - {each.name for each in fields(AssetMetadata)}
        if unknown:
            raise AssetError(f'{path}: files."{name}".{min(unknown)}: no such key')
    try:
        return _TRUTHS.validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(f'"{part}"' if "." in str(part) else str(part) for part in first["loc"])
        raise AssetError(f"{path}: files.{where}: {first['msg']}") from error


def _inspected(path: Path, content: bytes, truth: AssetMetadata) -> AssetMetadata:
    """Decode a file that is not ours, in a process of its own, and complete what is known of it."""
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        return truth
    if kind in _WRONG:
        raise AssetError(f"{path}: {_WRONG[kind]}")
    worker = Worker.start(wall_s=2 * _INSPECT_CPU_S)
    try:
        found = worker.inspect(content, kind, cpu_s=_INSPECT_CPU_S)
    except WorkerLostError as lost:
        raise AssetError(f"{path}: cannot be looked at: {lost}") from lost
    finally:
        worker.stop()
    if "problem" in found:
        raise AssetError(f"{path}: {found['problem']}")
    return replace(truth, **_agreeing(path, found, truth))


def _agreeing(path: Path, found: dict[str, Any], truth: AssetMetadata) -> dict[str, Any]:
    for key, value in found.items():
        said = getattr(truth, key)
        if said and (said != value if isinstance(value, str) else abs(said - value) > 0.5):
            raise AssetError(f"{path}: {key} is {value}, {TRUTH} says {said}; correct {TRUTH}")
    return found
