"""The programs that benchmarks compare with: GEMMA from apt, the others from PyPI, each in an environment of its own.

Environments lie in the scratch directory and are made once. BenchError says what could not be installed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from common import BenchError, environment, run

FASTLMM = ("fastlmm==0.6.13", "six", "numpy<2")
JAMMA = ("jamma==8.2.4",)
JANUSX = ("janusx==1.0.27",)


def install_gemma() -> Path:
    """The program of GEMMA, from apt if there is none."""
    if shutil.which("gemma") is None:
        if os.getuid() != 0:
            raise BenchError("there is no gemma, and only root can install it: apt-get install gemma")
        print("installing GEMMA (apt-get install gemma)", flush=True)
        env = environment(1) | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], env)
        run(["apt-get", "install", "-y", "--no-install-recommends", "gemma"], env)
    return Path("gemma")


def install_fastlmm(scratch: Path) -> Path:
    """The Python of FaST-LMM's environment."""
    return _from_pypi(scratch / "fastlmm-venv", FASTLMM, "python", "-c", "from fastlmm.association import single_snp")


def install_jamma(scratch: Path) -> Path:
    """The program of JAMMA."""
    return _from_pypi(scratch / "jamma-venv", JAMMA, "jamma", "--version")


def install_janusx(scratch: Path) -> Path:
    """The program of JanusX."""
    return _from_pypi(scratch / "janusx-venv", JANUSX, "jx", "--version")


def _from_pypi(venv: Path, packages: tuple[str, ...], program: str, *trial: str) -> Path:
    """``program`` of the environment ``venv`` with ``packages``, which is made if absent; ``trial`` must succeed."""
    found, mark = venv / "bin" / program, venv / "complete"
    if not mark.exists():
        print(f"installing {packages[0]} into {venv}", flush=True)
        env = own_environment(1)
        run(["/usr/bin/python3", "-m", "venv", "--clear", venv], env)
        pip = [venv / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run([*pip, *packages], env)
        run([found, *trial], env)
        mark.touch()
    return found


def own_environment(threads: int) -> dict[str, str]:
    """The environment without the paths that lead to mpgls's Python packages."""
    return {name: value for name, value in environment(threads).items() if name not in ("PYTHONPATH", "PYTHONHOME")}
