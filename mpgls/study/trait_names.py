"""Which traits of a file are meant by names, ranges of names and ranges of positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mpgls.errors import UsageError

_SHOWN_NAMES = 10


def select_names(names: Sequence[str], wanted: Sequence[str], source: str = "the trait file") -> list[int]:
    """Positions in ``names`` of what is ``wanted``, in that order; all for nothing or for ``all``.

    Each wanted text is a name, a range ``name1:name2`` (both included), or a range ``a-b`` of positions that count
    from 1; commas may stand between several. A name of the file goes before any other meaning. Raises UsageError for
    what is not there or is asked for twice.
    """
    position = {name: k for k, name in enumerate(names)}
    if not wanted or (tuple(wanted) == ("all",) and "all" not in position):
        return list(range(len(names)))
    chosen: dict[int, None] = {}
    for text in _apart(wanted, position):
        for k in _meant(text, position, source):
            if k in chosen:
                raise UsageError(f"trait {names[k]!r} of {source} is asked for twice")
            chosen[k] = None
    return list(chosen)


def _apart(wanted: Sequence[str], position: dict[str, int]) -> Iterator[str]:
    """The wanted texts, parted at commas where they mean nothing with them."""
    for text in wanted:
        try:
            _meant(text, position, "")
            yield text
        except UsageError:
            yield from filter(None, text.split(","))


def _meant(text: str, position: dict[str, int], source: str) -> range:
    """The positions that one wanted text stands for."""
    if text in position:
        return range(position[text], position[text] + 1)
    for cut in (k for k, letter in enumerate(text) if letter == ":"):
        first, last = text[:cut], text[cut + 1 :]
        if first in position and last in position:
            if position[first] > position[last]:
                raise UsageError(f"{text!r}: trait {last!r} comes before {first!r} in {source}")
            return range(position[first], position[last] + 1)
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal():
        if not 1 <= int(first) <= int(last) <= len(position):
            raise UsageError(f"{text!r} is no range of the {len(position)} traits of {source}")
        return range(int(first) - 1, int(last))
    raise UsageError(f"{source} has no trait {text!r}; its traits are {_some(list(position))}")


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
