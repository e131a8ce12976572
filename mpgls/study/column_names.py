"""Which columns of a table are meant by names, ranges, numbered names and patterns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mpgls.errors import UsageError

_SHOWN_NAMES = 10
_NUMBERED = re.compile(r"(.*)\{(\d+):(\d+)\}(.*)")
_WILD = {"*": ".*", "?": "."}


def select_names(
    names: Sequence[str], wanted: Sequence[str], source: str = "the trait file", what: str = "trait"
) -> list[int]:
    """Positions in ``names`` of what is ``wanted``, in that order; all for nothing or for ``all``.

    Each wanted text is one of these, the first that fits; commas may stand between several:

    - a name
    - ``name1:name2`` or ``name1-name2``, the range of both in the order of the file
    - ``a-b``, positions that count from 1
    - ``PC{1:20}``, the names PC1 to PC20
    - a pattern with ``*`` (any letters) and ``?`` (one letter), in the order of the file

    Messages call a column a ``what``. Raises UsageError for what is not there or is asked for twice; what a pattern
    matches may be asked for beside it.
    """
    position = {name: k for k, name in enumerate(names)}
    if not wanted or (tuple(wanted) == ("all",) and "all" not in position):
        return list(range(len(names)))
    chosen: dict[int, bool] = {}
    for text in _apart(wanted, position, what):
        matched = _is_pattern(text, position)
        for k in _meant(text, position, source, what):
            if k in chosen and not (matched or chosen[k]):
                raise UsageError(f"{what} {names[k]!r} of {source} is asked for twice")
            chosen.setdefault(k, matched)
    return list(chosen)


def _apart(wanted: Sequence[str], position: dict[str, int], what: str) -> Iterator[str]:
    """The wanted texts, parted at commas where they mean nothing with them."""
    for text in wanted:
        try:
            _meant(text, position, "", what)
            yield text
        except UsageError:
            yield from filter(None, text.split(","))


def _is_pattern(text: str, position: dict[str, int]) -> bool:
    return text not in position and any(letter in text for letter in _WILD)


def _meant(text: str, position: dict[str, int], source: str, what: str) -> Sequence[int]:
    """The positions that one wanted text stands for."""
    if text in position:
        return [position[text]]
    for cut in (k for k, letter in enumerate(text) if letter in ":-"):
        first, last = text[:cut], text[cut + 1 :]
        if first in position and last in position:
            if position[first] > position[last]:
                raise UsageError(f"{text!r}: {what} {last!r} comes before {first!r} in {source}")
            return range(position[first], position[last] + 1)
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        if not 1 <= int(first) <= int(last) <= len(position):
            raise UsageError(f"{text!r} is no range of the {len(position)} {what}s of {source}")
        return range(int(first) - 1, int(last))
    if numbered := _NUMBERED.fullmatch(text):
        return [_one(name, position, source, what) for name in _numbered(*numbered.groups())]
    if _is_pattern(text, position):
        pattern = re.compile("".join(_WILD.get(letter, re.escape(letter)) for letter in text))
        matched = [k for name, k in position.items() if pattern.fullmatch(name)]
        if not matched:
            raise UsageError(f"{source} has no {what} that {text!r} matches; its {what}s are {_some(list(position))}")
        return matched
    return [_one(text, position, source, what)]


def _numbered(before: str, first: str, last: str, after: str) -> Iterator[str]:
    """The names of ``PC{1:20}``; a first number with leading zeros gives all numbers its width."""
    if int(first) > int(last):
        raise UsageError(f"{before}{{{first}:{last}}}{after} runs backwards")
    for number in range(int(first), int(last) + 1):
        yield f"{before}{number:0{len(first)}d}{after}" if first.startswith("0") else f"{before}{number}{after}"


def _one(name: str, position: dict[str, int], source: str, what: str) -> int:
    if name not in position:
        raise UsageError(f"{source} has no {what} {name!r}; its {what}s are {_some(list(position))}")
    return position[name]


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
