"""Tables of the documents from the figures in bench/results, by the templates of bench/tables.md.

python bench/tables.py            # writes them into README.md and docs/performance.md
python bench/tables.py --check    # changes nothing; exits with 1 if a table is not what the figures say
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
TEMPLATES = ROOT / "bench" / "tables.md"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "performance.md")

SECTION = re.compile(r"^## (\S+)\n\n((?:\|.*\n)+)", re.MULTILINE)
MARKED = re.compile(r"^<!-- table: (\S+) -->\n(?:\|.*\n)*", re.MULTILINE)
FIELD = re.compile(r"\{(?P<path>[^{}:|]+)(?:\|(?P<filter>\w+))?(?::(?P<format>[^{}]+))?\}")
FILTERS: dict[str | None, Callable[[Any], float]] = {
    None: float,
    "median": statistics.median,
    "gib": lambda value: value / 2**30,
    "percent": lambda value: 100 * value,
}


@functools.cache
def figures(name: str) -> Any:
    """The JSON of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def figure(field: re.Match[str]) -> str:
    """The figure that a field of a template names, - where it was not measured (null). Raises KeyError."""
    name, *keys = field["path"].split("/")
    value = figures(name)
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    if value is None:
        return "-"
    return format(FILTERS[field["filter"]](value), field["format"] or "#.3g").rstrip(".")


def tables() -> dict[str, str]:
    """The tables by name, filled in."""
    return {name: FIELD.sub(figure, body) for name, body in SECTION.findall(TEMPLATES.read_text())}


def filled(document: str, made: dict[str, str]) -> str:
    """``document`` with the tables ``made`` after their marks. Raises KeyError for a mark without a template."""
    return MARKED.sub(lambda marked: f"<!-- table: {marked[1]} -->\n{made[marked[1]]}", document)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and exit with 1 if a table is not right")
    options = parser.parse_args()
    made, stale = tables(), []
    for path in DOCUMENTS:
        before = path.read_text()
        after = filled(before, made)
        if after != before:
            stale.append(path)
            if not options.check:
                path.write_text(after)
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'not what the figures say' if options.check else 'written'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
