"""Print the directory of the mouse data of GEMMA's example, and get them there if they are not: no root is needed.

    python3 jobs/mouse_data.py

Debian's package gemma-doc keeps them in /usr/share/doc/gemma/example. Where it is not installed, or was installed
without its documents (slim images), apt or Debian's server gives its file, and .mice/ of the checkout gets the mice.
Valdar et al. 2006, heterogeneous stock mice, as distributed with GEMMA.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

INSTALLED = Path("/usr/share/doc/gemma/example")
UNPACKED = Path(__file__).resolve().parents[1] / ".mice"
FILES = tuple(f"mouse_hs1940.{kind}.gz" for kind in ("bed", "bim", "fam"))
ADDRESS = "http://deb.debian.org/debian/pool/main/g/gemma/gemma-doc_0.98.5+dfsg-2_all.deb"
SHA256 = "7265420b3772562c8c7217721c2dafa8941055fc7971c60aba595c7333db6c25"


def place() -> Path | None:
    """Where the mice are; None if they are nowhere."""
    return next((folder for folder in (INSTALLED, UNPACKED) if all((folder / name).exists() for name in FILES)), None)


def package() -> bytes:
    """The file of Debian's package. Raises OSError where neither apt nor Debian's server gives it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError, subprocess.CalledProcessError):
        subprocess.run(["apt-get", "-qq", "download", "gemma-doc"], cwd=folder, check=True, capture_output=True)
        return next(Path(folder).glob("gemma-doc_*.deb")).read_bytes()
    with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise OSError("the file that came is not that package")
    return content


def member(deb: bytes, prefix: str) -> bytes:
    """The member of an ar archive whose name begins so: 60 bytes of header, the content, padding to 2 bytes."""
    at = len(b"!<arch>\n")
    while at < len(deb):
        name, size = deb[at : at + 16].decode().strip(), int(deb[at + 48 : at + 58])
        if name.startswith(prefix):
            return deb[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise OSError(f"the package has no {prefix}")


def unpack(deb: bytes, folder: Path) -> None:
    """The mouse files of the package, the last of them when all are whole."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(member(deb, "data.tar"))) as archive:
        for name in FILES:
            content = archive.extractfile(f".{INSTALLED}/{name}")
            assert content is not None
            (folder / f"{name}.part").write_bytes(content.read())
    for name in FILES:
        (folder / f"{name}.part").replace(folder / name)


def main() -> None:
    """Print the directory, or say in a sentence why there is none."""
    if place() is None:
        try:
            unpack(package(), UNPACKED)
        except OSError as error:
            sys.exit(f"the mouse data are not at {INSTALLED}, and {ADDRESS} cannot be had ({error})")
    print(place())


if __name__ == "__main__":
    main()
