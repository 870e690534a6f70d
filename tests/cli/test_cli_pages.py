"""README.md and docs/: every fastlstm command of their blocks has the options that the command line knows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fastlstm.cli.command import _make_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(page: Path) -> list[list[str]]:
    """The arguments of each, without pipes, files of the shell and comments."""
    blocks = re.findall(r"^ *```sh\n(.*?)```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|\| |&& |mpiexec -n \d+ )fastlstm (.*)", line) for line in lines]
    words = [shlex.split(match[1], comments=True) for match in found if match]
    return [[word for word in line if not re.fullmatch(r"[<>].+\.txt", word)] for line in words]


@pytest.mark.skipif(not PAGES[0].exists(), reason="the pages are not beside the tests")
def test_every_command_of_the_pages_is_understood() -> None:
    commands = [(page.name, words) for page in PAGES if page.exists() for words in commands_of(page)]
    assert len(commands) > 50
    refused = []
    for page, words in commands:
        try:
            _make_parser().parse_args(words)
        except SystemExit:
            refused.append((page, words))
    assert not refused
