"""The project's language: docstrings begin with ordinary verbs, and words that were retired do not come back."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = (".py", ".md", ".toml", ".yml", ".json", ".html", ".js", ".css", ".svg", ".example")
DIALECT = ("Give", "Gives", "Tell", "Tells", "Say", "Says", "Note", "Notes that", "Let", "Lets")

# A word or phrase with what to write instead. CONTRIBUTING.md has the rules behind them.
RETIRED = {
    r"\bartefacts?\b": "artifact, or result file",
    r"\b[Ll]anes?\b": "gateway",
    r"\b[Cc]onductor\b": "coordinator",
    r"\b[Tt]icker\b": "scheduler",
    r"\b[Ee]xaminer\b": "checker",
    r"\b[Vv]itals\b": "health",
    r"\b[Oo]wnerless|\b[Uu]nowned\b": "unattributed",
    r"\b[Tt]estimon(y|ies)\b": "evidence item",
    r"\bin the air\b": "in flight",
    r"\bput(ting|s)? off\b": "deferred",
    r"\bset aside\b": "unproven, or renamed",
    r"\bwhat came of\b": "results",
    r"\bhasten": "bring forward",
    r"\b(?:Whoever|whoever)\b": "the one who acts: the client, the caller, the operator",
    r"\banew\b": "again, or restarted",
    r"\b[Tt]akes? the place of\b": "replaces",
    r"\bsays? a word\b": "answers",
    r"\b(behaviour|colour|neighbour|favour|honour)": "the American spelling",
    r"\b(cancelled|cancelling|recognis|normalis|organis|serialis|initialis|licence|grey)": "the American spelling",
}
# Where a retired word is needed: names of libraries and file formats, shipped migrations, and the tests of those.
ALLOWED = {
    r"\bartefacts?\b": ("jobtester/store/migrations.py", "tests/integration/test_store.py"),
    r"\b(cancelled|cancelling|recognis|normalis|organis|serialis|initialis|licence|grey)": (
        ".cancelled()",
        ".cancelling()",
    ),
}


def tracked_texts() -> list[Path]:
    """Return the text files of the repository, but for the changelog, which quotes what it renames."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    paths = [ROOT / name for name in listed if name.endswith(TEXTS) or Path(name).name in ("Makefile", "Dockerfile")]
    excluded = (ROOT / "CHANGELOG.md", Path(__file__))
    return [path for path in paths if path.is_file() and path not in excluded]


def docstrings(path: Path) -> list[tuple[int, str]]:
    """Return the line and text of each docstring in a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 1), text))
    return found


def test_docstrings_begin_with_ordinary_verbs() -> None:
    """Functions return, raise, send and record; they do not give, tell, say, note or let."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in tracked_texts()
        if path.suffix == ".py"
        for line, text in docstrings(path)
        if re.match(rf"({'|'.join(DIALECT)})\b", text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_words_are_gone(pattern: str) -> None:
    """Each has been replaced by a plain word."""
    allowed = ALLOWED.get(pattern, ())
    wrong = []
    for path in tracked_texts():
        name = str(path.relative_to(ROOT))
        if name in allowed:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            text = line
            for permitted in allowed:
                text = text.replace(permitted, "")
            if re.search(pattern, text):
                wrong.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not wrong, f"use {RETIRED[pattern]}:\n" + "\n".join(wrong)
