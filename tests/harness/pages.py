"""Pages of the documentation, taken apart: headings, links, code, and what they claim to be."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.documentation_tables import PAGES, ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_BARE = re.compile(r"<(https?://[^>]+)>")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Return where it is, from the top of the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        """Return the whole text."""
        return self.path.read_text("utf-8")

    @cached_property
    def prose(self) -> str:
        """Return the text without code blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def headings(self) -> list[str]:
        """Return the headings in order."""
        return _HEADING.findall(self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """Return what a link may point to inside the page, as hosts of repositories make it of headings."""
        counts: dict[str, int] = {}
        anchors = set()
        for heading in self.headings:
            slug = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
            count = counts.get(slug, 0)
            anchors.add(f"{slug}-{count}" if count else slug)
            counts[slug] = count + 1
        return anchors

    @cached_property
    def links(self) -> list[str]:
        """Return the targets of links and pictures."""
        plain = _INLINE.sub("", self.prose)
        return [*_LINK.findall(plain), *_BARE.findall(plain)]

    @cached_property
    def inline(self) -> list[str]:
        """Return the pieces of code inside the text."""
        return _INLINE.findall(self.prose)

    def under(self, heading: str) -> str:
        """Return the text between a heading and the next."""
        return self.text.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]

    def blocks(self, *languages: str, under: str = "") -> list[str]:
        """Return the code blocks of these languages, on the whole page or under a heading."""
        text = self.under(under) if under else self.text
        return [body for language, body in _FENCE.findall(text) if language in languages]

    @cached_property
    def commands(self) -> list[list[str]]:
        """Return the words of every command in the shell blocks."""
        blocks = [body.replace("\\\n", "") for body in self.blocks("sh", "console", "bash")]
        lines = [line for body in blocks for line in body.splitlines()]
        return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]

    def table(self, heading: str) -> Iterator[list[str]]:
        """Return the cells of the first table under a heading, without its head."""
        for row in _ROW.findall(self.under(heading))[2:]:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]


def all_pages() -> list[Page]:
    """Return every page."""
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "assets/README.md", "benchmarks/README.md")
    outside = [ROOT / name for name in names]
    return [Page(path) for path in (*outside, *sorted(PAGES.glob("*.md")))]


def page_of(name: str) -> Page:
    """Return one page of docs/."""
    return Page(PAGES / name)
