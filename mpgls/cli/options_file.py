"""@FILE on the command line stands for the words of a file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from mpgls.errors import StorageError, UsageError


def expand(argv: Sequence[str], takes_value: Callable[[str], bool]) -> list[str]:
    """``argv`` with the words of FILE in place of each @FILE that is not the value of an option, nor in a file itself.

    Words of a file are separated by blanks and line ends, and quoted as in a shell; what follows # in a line is a
    remark. ``takes_value`` says of a word whether it is an option whose value comes next. Raises StorageError for a
    file that cannot be read, UsageError for one that is no text or has an open quote.
    """
    words: list[str] = []
    for before, word in zip(["", *argv], argv, strict=False):
        if word.startswith("@") and word != "@" and not takes_value(before):
            words += _words_of(word[1:])
        else:
            words.append(word)
    return words


def _words_of(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            return shlex.split(stream.read(), comments=True)
    except OSError as error:
        raise StorageError(f"cannot read the options in {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the file of options {path} is not UTF-8 text") from None
    except ValueError as error:
        raise UsageError(f"the file of options {path} has a quote that is not closed: {error}") from None
