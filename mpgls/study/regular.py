"""What may lie at the name of a file that is read: a file, which can be read from any place and more than once."""

from __future__ import annotations

import os
import stat

from mpgls.errors import StorageError


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise StorageError for a directory, a pipe, a socket or a device; what is not there is not its matter.

    It opens nothing, because to open a pipe waits for whoever writes to it.
    """
    kind = irregular(path)
    if kind == "pipe":
        raise StorageError(
            f"cannot read {os.fspath(path)}: it is a pipe, and mpgls reads its files more than once: write what comes "
            "from it to a file, and give that"
        )
    if kind:
        raise StorageError(f"cannot read {os.fspath(path)}: it is a {kind}, not a file")


def irregular(path: str | os.PathLike[str]) -> str:
    """What lies at ``path`` that is no file, in a word; empty for a file, and where nothing can be looked at."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return next((word for is_one, word in _KINDS.items() if is_one(mode)), "")


_KINDS = {
    stat.S_ISDIR: "directory",
    stat.S_ISFIFO: "pipe",
    stat.S_ISSOCK: "socket",
    stat.S_ISCHR: "device",
    stat.S_ISBLK: "device",
}
