"""Finding and loading ScaLAPACK: the order of MKL's layers, the BLACS of the running MPI, and libraries in a circle."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpgls.errors import UsageError
from mpgls.la import eigen, libraries, scalapack

LAYERS = ("core", "intel_thread", "gnu_thread", "sequential", "intel_lp64", "blacs_openmpi_lp64", "blacs_intelmpi_lp64")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A Python without libraries beside it, and an environment that names none."""
    monkeypatch.setattr(libraries.sysconfig, "get_path", lambda name: str(tmp_path / "python"))
    monkeypatch.setattr(libraries.site, "getuserbase", lambda: str(tmp_path / "user"))
    monkeypatch.delenv("MPGLS_SCALAPACK", raising=False)
    monkeypatch.delenv("MKLROOT", raising=False)
    return tmp_path


def put_mkl(directory: Path, version: str = ".2") -> Path:
    directory.mkdir(parents=True)
    for layer in (*LAYERS, "scalapack_lp64"):
        (directory / f"libmkl_{layer}.so{version}").touch()
    return directory


def stems(candidate: libraries.Candidate) -> list[str]:
    return [Path(name).name.split(".so")[0].removeprefix("libmkl_") for name in candidate]


@pytest.mark.parametrize(
    ("vendor", "blacs"), [("Open MPI", "openmpi"), ("MPICH", "intelmpi"), ("Intel MPI", "intelmpi")]
)
@pytest.mark.parametrize("place", ["python/lib", "user/lib", "mkl/lib", "mkl/lib/intel64"])
def test_layers_of_mkl(elsewhere, monkeypatch, vendor, blacs, place) -> None:
    """The core before the layers that take addresses from it, threads before one thread, the BLACS of the MPI."""
    put_mkl(elsewhere / place)
    monkeypatch.setenv("MKLROOT", str(elsewhere / "mkl"))
    found = [stems(one) for one in libraries.candidates(vendor) if len(one) > 1]
    end = ["intel_lp64", f"blacs_{blacs}_lp64", "scalapack_lp64"]
    assert found == [
        ["libiomp5", "core", "intel_thread", *end],
        ["libgomp", "core", "gnu_thread", *end],
        ["core", "sequential", *end],
    ]


def test_openmp_beside_mkl_is_taken(elsewhere, monkeypatch) -> None:
    """A wheel of MKL brings libiomp5 beside it; a module's lies on LD_LIBRARY_PATH."""
    directory = put_mkl(elsewhere / "mkl", version="")
    monkeypatch.setenv("MPGLS_SCALAPACK", str(directory))
    assert next(libraries.candidates("MPICH"))[0] == "libiomp5.so"
    (directory / "libiomp5.so").touch()
    assert next(libraries.candidates("MPICH"))[0] == str(directory / "libiomp5.so")


def test_wheels_come_before_the_system(elsewhere) -> None:
    """An environment's own MPI runs with its own ScaLAPACK, whatever Debian has installed."""
    put_mkl(elsewhere / "python/lib")
    assert Path(next(libraries.candidates("MPICH"))[-1]).parent == elsewhere / "python/lib"


def test_names_of_netlib(elsewhere) -> None:
    assert [name for (name,) in libraries.candidates("Open MPI")] == [
        "libscalapack-openmpi.so.2.2", "libscalapack-openmpi.so", "libscalapack.so", "libscalapack.so.2.2",
    ]  # fmt: skip
    assert next(libraries.candidates("MPICH")) == ("libscalapack-mpich.so.2.2",)


def test_the_environment_decides(elsewhere, monkeypatch) -> None:
    put_mkl(elsewhere / "python/lib")
    monkeypatch.setenv("MPGLS_SCALAPACK", "libblas.so:/opt/libscalapack.so")
    assert list(libraries.candidates("MPICH")) == [("libblas.so", "/opt/libscalapack.so")]
    (elsewhere / "netlib").mkdir()
    (elsewhere / "netlib/libscalapack.so").touch()
    monkeypatch.setenv("MPGLS_SCALAPACK", str(elsewhere / "netlib"))
    assert list(libraries.candidates("MPICH")) == [(str(elsewhere / "netlib/libscalapack.so"),)]


def test_mpi_libraries_of_a_process() -> None:
    files = (
        "/usr/lib/libmpi.so.40.30.4", "/usr/lib/libmpi_mpifh.so.40", "/venv/libmpi.so.12", "/usr/lib/libmpich.so.12",
        "/opt/cray/lib/libmpi_gnu_123.so.12", "/opt/cray/lib/libmpi_cray.so", "/x/mpi4py/MPI.mpich.so",
        "/dev/shm/mpich_shm_1", "/usr/lib/libmpichfort.so.12", "/lib/libmkl_blacs_openmpi_lp64.so.2",
    )  # fmt: skip
    lines = [f"7f00-7f01 r-xp 00000000 fe:00 77 {file}\n" for file in files] + ["7f00-7f01 rw-p 00000000 00:00 0 \n"]
    assert libraries.mpi_libraries(lines) == sorted(files[k] for k in (0, 2, 3, 4, 5))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_libraries_that_need_one_another(tmp_path) -> None:
    """``ping`` calls ``pong`` of a library that is loaded after it, and the other way round."""
    for here, there, base in (("ping", "pong", 1), ("pong", "ping", 2)):
        source = f"int {there}(int n); int {here}(int n) {{ return n ? {there}(n - 1) : {base}; }}"
        (tmp_path / f"{here}.c").write_text(source, encoding="utf-8")
        files = [str(tmp_path / f"{here}.c"), "-o", str(tmp_path / f"lib{here}.so")]
        subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-z,lazy", *files], check=True)
    ping, _ = (scalapack._open(str(tmp_path / name)) for name in ("libping.so", "libpong.so"))
    assert (ping.ping(4), ping.ping(3)) == (1, 2)


def test_a_second_mpi_is_refused_again_and_again(monkeypatch) -> None:
    """It cannot be unloaded, so whoever asks after the first refusal is refused as well."""
    mapped = ["/lib/libmpi.so.12"]

    def load(name: str) -> object:
        mapped.append("/usr/lib/libmpich.so.12")
        return type("Library", (), {"pdpotrf_": name})

    monkeypatch.setattr(scalapack, "_running_mpi", functools.cache(lambda: tuple(mapped)))
    monkeypatch.setattr(scalapack, "_mpi_libraries", lambda: mapped)
    monkeypatch.setattr(scalapack, "candidates", lambda vendor: [("libscalapack-mpich.so",)])
    monkeypatch.setattr(scalapack, "_open", load)
    for _ in range(2):
        with pytest.raises(
            UsageError, match=r"was built for the MPI library /usr/.*, but mpi4py runs with /lib/libmpi"
        ):
            scalapack._libraries.__wrapped__()


def test_nothing_found_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setenv("MPGLS_SCALAPACK", "libno-such-scalapack.so:libm.so.6")
    with pytest.raises(UsageError, match=r"tried libm.so.6 \(libno-such-scalapack.so: .*pip install"):
        scalapack._libraries.__wrapped__()
    monkeypatch.setenv("MPGLS_SCALAPACK", "libm.so.6")
    with pytest.raises(UsageError, match=r"tried libm.so.6 \(it has no pdpotrf_\)"):
        scalapack._libraries.__wrapped__()


def test_without_slepc_a_sentence_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "slepc4py", None)
    with pytest.raises(UsageError, match=r"docs/cluster.md says how to get it; mpgls eigen without --eigenpairs"):
        eigen.leading_eigenpairs(None, 3)
    with pytest.raises(UsageError, match=r"docs/cluster.md says how to get it; --eigensolver scalapack does without"):
        eigen._libraries()
