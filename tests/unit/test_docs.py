"""The documents: width of prose, links, options in examples, and the version in CITATION.cff."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpgls
from mpgls.cli import parse

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "bench", "tests", "jobs")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
WIDTH = 100

FENCE = re.compile(r"\s*```")
CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ONE_LINK = re.compile(r"\s*(?:[-*] )?!?\[[^\]]*\]\([^)\s]+\)[.,:;]?\s*")
ASSIGNMENT = re.compile(r"""\s*(\w+)=(["'])(.*mpgls .*)\2""")
CALL = re.compile(r"""(?:^|[\s"'(])mpgls(?: ([a-z][a-z-]*))?(?=[\s"']|$)(.*)""")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of the lines outside code fences."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def too_wide(text: str) -> list[int]:
    """Numbers of the lines of prose over WIDTH; tables, headings and lines that are one link may be wider."""
    return [
        number
        for number, line in prose(text)
        if len(line) > WIDTH and not line.lstrip().startswith(("|", "#")) and not ONE_LINK.fullmatch(line)
    ]


def targets(text: str) -> list[str]:
    """Where the links and images of a page lead, those in code excepted."""
    return LINK.findall(CODE.sub("", "\n".join(line for _, line in prose(text))))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for _, line in prose(text):
        if heading := re.match(r"#+ (.*)", line):
            slug = re.sub(r"[^\w\- ]", "", LINK.sub("", heading[1]).lower()).strip().replace(" ", "-")
            same = sum(re.fullmatch(re.escape(slug) + r"(-\d+)?", other) is not None for other in found)
            found.add(f"{slug}-{same}" if same else slug)
    return found


def dead_links(page: Path, text: str) -> list[str]:
    """The relative links of a page to a file or heading that is not there."""
    dead = []
    for target in targets(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            dead.append(target)
    return dead


def commands(text: str) -> Iterator[str]:
    """The command lines in the code blocks of a page: continued lines joined, variables that hold mpgls put in."""
    for block in re.findall(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", text, flags=re.MULTILINE | re.DOTALL):
        variables: dict[str, str] = {}
        for raw in re.sub(r"\\\n", " ", block).splitlines():
            line = re.sub(r"(^|\s)#.*", "", raw)
            if variable := ASSIGNMENT.fullmatch(line):
                variables[variable[1]] = variable[3]
            for key, value in variables.items():
                line = re.sub(rf"\${key}\b", lambda _, value=value: value, line)
            yield line


def unknown_options(text: str) -> list[str]:
    """Options of mpgls in the code blocks of a page that its --help does not know."""
    unknown = []
    for line in commands(text):
        if call := CALL.search(line):
            known = options_of(call[1] or "")
            unknown += [f"mpgls {call[1] or ''} {option}" for option in OPTION.findall(call[2]) if option not in known]
    return unknown


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """The options that ``mpgls COMMAND --help`` shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        parse([command, "--help"] if command else ["--help"])
    return frozenset(OPTION.findall(shown.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_of_prose_end_at_the_width(page):
    assert too_wide(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_images_exist(page):
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_examples_are_in_the_help(page):
    assert unknown_options(page.read_text(encoding="utf-8")) == []


def test_the_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE) == [mpgls.__version__]


def test_faults_are_seen():
    long = "word " * 21
    assert too_wide(f"{long}\n| {long} |\n# {long}\n```\n{long}\n```\n- [{long}](page.md).\n{long}") == [1, 8]
    page = ROOT / "README.md"
    assert dead_links(page, "[a](absent.md) [b](README.md#absent) [c](README.md#mpgls) `[d](absent.md)`") == [
        "absent.md",
        "README.md#absent",
    ]
    example = (
        '```bash\nscan="mpirun -n 2 mpgls eigen --grm K"\n$scan --no-such \\\n  --out E --nor-this # --not-this\n```'
    )
    assert unknown_options(example) == ["mpgls eigen --no-such", "mpgls eigen --nor-this"]
