"""The commands that README, CONTRIBUTING and docs/ tell a reader to type."""

import re
import shlex
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path

from tests.conftest import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = {"", "sh", "bash", "console"}  # what a block of commands is marked with; others hold YAML, Python, a tree
SETS = re.compile(r"\w+=")
STARTS = re.compile(r"(?:\w+=\S+ )*(?:make|pytest|torchrun|hf|pip|python3?)\b(?! *$)")


@dataclass(frozen=True)
class Command:
    """One command, and the first page that has it. text: as it stands there, without the remark beside it."""

    page: str
    text: str

    @property
    def variables(self) -> dict[str, str]:
        """What it sets in front of the program."""
        return dict(word.split("=", 1) for word in takewhile(SETS.match, self._parted))

    @property
    def words(self) -> list[str]:
        """As a shell would part it, without variables in front and without what follows a > ."""
        return list(dropwhile(SETS.match, self._parted))

    @property
    def _parted(self) -> list[str]:
        return shlex.split(re.split(r" >>? ", self.text)[0])

    @property
    def module(self) -> str | None:
        """What stands behind python -m, torchrun's included."""
        return self.words[self.words.index("-m") + 1] if "-m" in self.words and self.words[0] != "pytest" else None

    @property
    def arguments(self) -> list[str]:
        """What stands behind the module, or behind the program."""
        return self.words[self.words.index("-m") + 2 :] if self.module else self.words[1:]


def commands(page: Path) -> list[Command]:
    """Every line of a page's blocks, and every quoted word that begins as a command does."""
    text, found = page.read_text(), []
    for mark, block in FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines() if mark in SHELL else []
        found += [Command(page.name, re.split(r"\s{2,}|\s#\s", line.strip())[0]) for line in lines if line.strip()]
    quoted = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return found + [Command(page.name, word) for word in quoted if STARTS.match(word)]


def every_command() -> list[Command]:
    """Those of all pages, each once."""
    found: dict[str, Command] = {}
    for command in (c for page in PAGES for c in commands(page)):
        found.setdefault(command.text, command)
    return list(found.values())
