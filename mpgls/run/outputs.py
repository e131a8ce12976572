"""Where the files of a run go, and which of the files that lie there it may replace: those of its own command.

What a run makes, it lists in PREFIX.json.partial before it makes it. So a run that was killed has left the list, a run
that has ended has it in its manifest, and some files say themselves which command made them.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mpgls.errors import MpglsError, StorageError, UsageError
from mpgls.report.manifest import write_manifest
from mpgls.stream.files import writing
from mpgls.stream.unit_log import MAGIC
from mpgls.study.hdf5 import open_hdf5

HDF5 = b"\x89HDF\r\n"
"""The first line of an HDF5 file."""
FIRST_LINE_OF_LOG = re.compile(rb" *[0-9.]+  mpgls ([a-z-]+): ")


@dataclass
class Outputs:
    """The files of a run of ``command`` under ``prefix``; ``record`` comes before the .json of its manifest.

    ``inputs`` are the files that it reads. Files are named by what follows the prefix; a name may have wildcards, and
    that of a folder ends in a slash.
    ``known`` are those that this command has made or will make. The methods are for one rank.
    """

    prefix: str
    command: str
    record: str
    inputs: Sequence[str]
    known: dict[str, None] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        """The file that says that the run has ended, and what it did."""
        return Path(f"{self.prefix}{self.record}.json")

    @property
    def unfinished(self) -> Path:
        """The list of what is made, until there is a manifest."""
        return Path(f"{self.manifest}.partial")

    def check_place(self) -> None:
        """Check that files can be made under the prefix. Raises UsageError and StorageError."""
        if os.path.basename(self.prefix) == "":
            raise UsageError(f"--out {self.prefix or repr('')} must end in a prefix for the names of the output files")
        directory = os.path.dirname(os.path.abspath(self.prefix))
        if not os.path.isdir(directory):
            raise StorageError(f"cannot write {self.prefix}: there is no directory {directory}")
        if not os.access(directory, os.W_OK):
            raise StorageError(f"cannot write {self.prefix}: no permission in {directory}")

    def look_back(self) -> None:
        """Find out what earlier runs of the command have made here, whatever their record is called."""
        stem = os.path.basename(self.prefix)
        for path in (
            one for ending in ("", ".partial") for dot in ("", ".*") for one in self._at(f"{dot}.json{ending}")
        ):
            found = read_json(path)
            if found.get("command") == self.command:
                for name in (*found.get("files", ()), *found.get("other_files", ())):
                    self.known[os.path.basename(name.rstrip("/")).removeprefix(stem) + "/" * name.endswith("/")] = None

    def check(self, suffixes: Iterable[str]) -> None:
        """Check that what lies at these names may be replaced.

        Raises UsageError, naming the file, where it is an input of the run or was not made by its command; StorageError
        where it is a directory, but for an empty one that the run would make.
        """
        for suffix in suffixes:
            for path in (one for name in (suffix, f"{suffix}.partial") for one in self._at(name)):
                for source in filter(os.path.exists, self.inputs):
                    if os.path.samefile(path, source):
                        raise UsageError(f"the run would overwrite its input {source}: give another --out")
                if self._is_known(path):
                    continue
                if os.path.isdir(path):
                    if suffix.endswith("/") and not os.listdir(path):
                        continue
                    raise StorageError(f"cannot write {path}: it is a directory")
                refuse_foreign(path, self.command, "--out")

    def claim(self, suffixes: Sequence[str]) -> None:
        """`check` these names, and list them as made by this command before they are. Raises StorageError, too."""
        self.check(suffixes)
        before = len(self.known)
        self.known.update(dict.fromkeys(suffixes))
        if len(self.known) > before:
            self.write_list()

    def write_list(self) -> None:
        """Write the list of what is made."""
        files = [f"{self.prefix}{suffix}" for suffix in self.known]
        write_manifest(self.unfinished, {"command": self.command, "files": files})

    def unfinished_files(self) -> list[str]:
        """What a run of the command that was killed had not finished; a running one holds the prefix."""
        return [path for suffix in self.known for path in self._at(f"{suffix}.partial")]

    def has_any(self, suffixes: Iterable[str]) -> bool:
        """Whether a file of these names, or a manifest, is there."""
        return any(self._at(suffix) for suffix in (*suffixes, f"{self.record}.json"))

    def finish(self, manifest: dict[str, Any], until_done: Sequence[str]) -> None:
        """Write the manifest in place of the list, with the other files of the command but those ``until_done``."""
        own = set(map(os.path.abspath, manifest["files"]))
        lasting = [suffix for suffix in self.known if suffix not in until_done]
        others = [path for suffix in lasting for path in self._at(suffix) if os.path.abspath(path) not in own]
        write_manifest(self.unfinished, manifest | {"other_files": others})
        with writing(self.manifest):
            os.replace(self.unfinished, self.manifest)

    def leave(self) -> None:
        """The run ends without having finished: forget the list where none of its files is there."""
        if self.unfinished.exists() and not any(map(self._at, self.known)):
            self.unfinished.unlink()

    def _at(self, suffix: str) -> list[str]:
        """The paths that a name stands for; only a name that no file has is taken for a pattern."""
        path = f"{self.prefix}{suffix}"
        return [path] if os.path.lexists(path) else sorted(glob.glob(glob.escape(self.prefix) + suffix))

    def _is_known(self, path: str) -> bool:
        name = path.removeprefix(self.prefix).removesuffix(".partial")
        if name == f"{self.record}.log" and maker_of(path):
            return True  # a run that made anything has left a manifest or a list as well
        return name in self.known or any(fnmatchcase(name, pattern) for pattern in self.known)


def refuse_foreign(path: str | os.PathLike[str], command: str, option: str) -> None:
    """UsageError if there is a file at ``path`` that ``command`` did not make; ``option`` is what the user may change.

    An empty file has nothing to lose.
    """
    if not os.path.lexists(path) or (os.path.isfile(path) and os.path.getsize(path) == 0):
        return
    maker = maker_of(path)
    if maker != command:
        whose = f"was made by mpgls {maker}" if maker else f"was not made by mpgls {command}"
        raise UsageError(f"{os.fspath(path)} {whose} and is not replaced: give another {option}")


def maker_of(path: str | os.PathLike[str]) -> str | None:
    """The command of mpgls that the file itself names: a log, a manifest, units, or a store with its mark."""
    try:
        with open(path, "rb") as file:
            first = file.readline(1 << 16)
            second = file.readline(1 << 24) if first == MAGIC else b""
    except OSError:
        return None
    if first == HDF5:
        return _maker_of_store(path)
    if first == MAGIC:
        return _maker_in_mark(_json(second).get("made_from"))
    if first.lstrip().startswith(b"{"):
        return _text(read_json(path).get("command"))
    line = FIRST_LINE_OF_LOG.match(first)
    return line[1].decode() if line else None


def _maker_of_store(path: str | os.PathLike[str]) -> str | None:
    with contextlib.suppress(MpglsError), open_hdf5(path) as file:
        return _maker_in_mark(file.attrs.get("made_from"))
    return None


def _maker_in_mark(text: Any) -> str | None:
    return _text(_json(text).get("command"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where there is no such file."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        return _json(file.read())
    return {}


def _json(text: Any) -> dict[str, Any]:
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}
