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
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mpgls.errors import MpglsError, StorageError, UsageError
from mpgls.report.manifest import write_manifest
from mpgls.stream.files import writing
from mpgls.stream.unit_log import MAGIC
from mpgls.study.hdf5 import open_hdf5
from mpgls.study.regular import irregular

LOCK, PARTIAL = ".lock", ".partial"
"""Endings of what a run has beside its files, and of a file while it is made."""
HDF5 = b"\x89HDF\r\n"
"""The first line of an HDF5 file."""
FIRST_LINE_OF_LOG = re.compile(rb" *[0-9.]+  mpgls ([a-z-]+): ")


@dataclass
class Outputs:
    """The files of a run of ``command`` under ``prefix``; ``record`` comes before the .json of its manifest.

    ``inputs`` are the files that it reads. Files are named by what follows the prefix; a name may have wildcards, and
    that of a folder ends in a slash.
    ``until_done`` are those that go when the run has ended, ``known`` those that this command has made or will make.
    The methods are for one rank.
    """

    prefix: str
    command: str
    record: str
    inputs: Sequence[str]
    until_done: Sequence[str] = ()
    known: dict[str, None] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        """The file that says that the run has ended, and what it did."""
        return Path(f"{self.prefix}{self.record}.json")

    @property
    def unfinished(self) -> Path:
        """The list of what is made, until there is a manifest."""
        return Path(f"{self.manifest}.partial")

    @property
    def directory(self) -> str:
        """Where the files go."""
        return os.path.dirname(os.path.abspath(self.prefix))

    def check_place(self) -> None:
        """Check that files can be made under the prefix. Raises UsageError and StorageError."""
        if os.path.basename(self.prefix) in ("", os.curdir, os.pardir):
            raise UsageError(f"--out {self.prefix or repr('')} must end in a prefix for the names of the output files")
        if not os.path.isdir(self.directory):
            raise StorageError(f"cannot write {self.prefix}: there is no directory {self.directory}")
        if not os.access(self.directory, os.W_OK):
            raise StorageError(f"cannot write {self.prefix}: no permission in {self.directory}")
        self.check_names([LOCK])

    def check_names(self, suffixes: Iterable[str]) -> None:
        """Check that the file system takes these names, also while a file is made. Raises StorageError."""
        most = os.pathconf(self.directory, "PC_NAME_MAX") - len(PARTIAL)
        for suffix in suffixes:
            path = f"{self.prefix}{suffix}".rstrip("/")
            length = len(os.fsencode(os.path.basename(path)))
            if length > most:
                raise StorageError(
                    f"cannot write {path}: its name has {length} bytes, and {self.directory} takes {most} beside "
                    f"{PARTIAL}: give a shorter --out"
                )

    def look_back(self) -> None:
        """Find out what earlier runs of the command have made here, whatever their record is called."""
        stem = os.path.basename(self.prefix)
        for path in (
            one for ending in ("", ".partial") for dot in ("", ".*") for one in self._at(f"{dot}.json{ending}")
        ):
            found = read_json(path)
            if found.get("command") == self.command:
                self.known.update(dict.fromkeys(self.until_done))  # a run may be killed before it has removed them
                for name in (*found.get("files", ()), *found.get("other_files", ())):
                    self.known[os.path.basename(name.rstrip("/")).removeprefix(stem) + "/" * name.endswith("/")] = None

    def check(self, suffixes: Iterable[str]) -> None:
        """Check that these names can be written, and that what lies there may be replaced.

        Raises UsageError, naming the file, where it is an input of the run or was not made by its command; StorageError
        where a name is too long, or something that is no file lies there, but for an empty folder that the run would
        make.
        """
        suffixes = list(suffixes)
        self.check_names(suffixes)
        for suffix in suffixes:
            self._check_kind(suffix)
            for path in (one for name in (suffix, f"{suffix}{PARTIAL}") for one in self._at(name)):
                for source in filter(os.path.exists, self.inputs):
                    if os.path.samefile(path, source):
                        raise UsageError(f"the run would overwrite its input {source}: give another --out")
                if self._is_known(path):
                    continue
                if os.path.isdir(path):
                    if not os.listdir(path):
                        continue
                    raise StorageError(f"cannot write {path}: it is a directory with files of others")
                refuse_foreign(path, self.command, "--out")

    def _check_kind(self, suffix: str) -> None:
        """Check that a folder lies where one is to be, and files where files are. Raises StorageError."""
        if suffix.endswith("/"):
            path = f"{self.prefix}{suffix}".rstrip("/")
            if os.path.lexists(path) and not os.path.isdir(path):
                raise StorageError(f"cannot write {path}/: there is a file of that name")
            return
        for path in (*self._at(suffix), *self._at(f"{suffix}{PARTIAL}")):
            if kind := irregular(path):
                raise StorageError(f"cannot write {path}: it is a {kind}")

    def check_room(self, sizes: Mapping[str, int], resume: bool) -> None:
        """Check that files of so many bytes, by name, have room. Raises StorageError.

        What of them a run to resume has made already is not needed again.
        """
        made = [path for suffix in sizes for path in self._at(suffix)] if resume else []
        held = sum(os.stat(path).st_blocks * 512 for path in made)
        check_room(self.directory, {f"{self.prefix}{suffix}": size for suffix, size in sizes.items()}, held)

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

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest in place of the list, with the other files of the command but those ``until_done``."""
        own = set(map(os.path.abspath, manifest["files"]))
        lasting = [suffix for suffix in self.known if suffix not in self.until_done]
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


def check_room(directory: str | os.PathLike[str], sizes: Mapping[str, int], held: int = 0) -> None:
    """StorageError, before hours of work, where ``directory`` has no room for files of so many bytes, by path.

    ``held`` are the bytes that it has for them already.
    """
    needed, largest = sum(sizes.values()), max(sizes, key=sizes.__getitem__, default="")
    with writing(directory):
        free = shutil.disk_usage(directory).free + held
    if needed > free:
        raise StorageError(
            f"cannot write {largest}: the files of this run take {needed:,} bytes, {sizes[largest]:,} of them this one,"
            f" and {os.path.abspath(directory)} has {free:,} bytes free"
        )


def refuse_foreign(path: str | os.PathLike[str], command: str, option: str) -> None:
    """UsageError if there is a file at ``path`` that ``command`` did not make; ``option`` is what the user may change.

    An empty file has nothing to lose. StorageError for what is no file.
    """
    if kind := irregular(path):
        raise StorageError(f"cannot write {os.fspath(path)}: it is a {kind}")
    if not os.path.lexists(path) or (os.path.isfile(path) and os.path.getsize(path) == 0):
        return
    maker = maker_of(path)
    if maker != command:
        whose = f"was made by mpgls {maker}" if maker else f"was not made by mpgls {command}"
        raise UsageError(f"{os.fspath(path)} {whose} and is not replaced: give another {option}")


def maker_of(path: str | os.PathLike[str]) -> str | None:
    """The command of mpgls that the file itself names: a log, a manifest, units, or a store with its mark."""
    if irregular(path):
        return None
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
    if not irregular(path):  # to open a pipe would wait for whoever writes to it
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            return _json(file.read())
    return {}


def _json(text: Any) -> dict[str, Any]:
    with contextlib.suppress(ValueError, TypeError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}


def remove(paths: Iterable[str]) -> None:
    """Remove the files that are there."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
