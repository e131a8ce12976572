"""The recipes and scripts in jobs/ parse; recipes ask for what pyproject.toml asks for; env.sh; the mice's archive."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mpgls.version import __version__

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"
EXTRAS = ("images", "parquet", "slepc")


@pytest.fixture(scope="module")
def project() -> dict:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def bounds(requirements: list[str]) -> dict[str, str]:
    """Name and lowest version of ``name>=version``, also with blanks."""
    found = (re.fullmatch(r"([\w.-]+) ?>=([\d.]+)", line) for line in requirements)
    return {one[1]: one[2] for one in found if one}


def wanted(project: dict, *extras: str) -> dict[str, str]:
    needed = [*project["project"]["dependencies"]]
    for extra in extras:
        needed += project["project"]["optional-dependencies"][extra]
    return bounds(needed)


def sections(text: str) -> dict[str, str]:
    """The sections of an Apptainer definition by name; its header is the section ''."""
    parts = re.split(r"^%(\w+).*$", text, flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def test_apptainer(project) -> None:
    found = sections((JOBS / "apptainer.def").read_text("utf-8"))
    assert set(found) == {"", "help", "files", "post", "runscript", "test"}
    assert re.fullmatch(r"Bootstrap: docker\nFrom: python:3\.\d+-slim-bookworm\n\n", found[""])
    for name in ("post", "runscript", "test"):
        subprocess.run(["sh", "-n"], input=found[name], text=True, check=True)
    *files, target = found["files"].split()
    assert all((ROOT / name).exists() for name in files) and f"{target.rstrip('/')}[" in found["post"]
    assert set(files) >= {"pyproject.toml", project["project"]["readme"], "LICENSE", "mpgls"}
    extras = re.search(r"\[([\w,]+)\]", found["post"])
    assert (
        extras
        and "wheels" in extras[1]
        and set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
    )


def test_spack(project) -> None:
    tree = ast.parse((JOBS / "spack/package.py").read_text("utf-8"))
    (recipe,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert recipe.name == "PyMpgls"
    calls: dict[str, list[str]] = {}
    for node in recipe.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            calls.setdefault(ast.unparse(node.value.func), []).append(ast.literal_eval(node.value.args[0]))
    assert calls["version"] == [__version__] and sorted(calls["variant"]) == sorted(EXTRAS)
    found = bounds([re.sub(r"^py-(.*)@(.*):$", r"\1>=\2", line) for line in calls["depends_on"]])
    assert found.pop("setuptools") == bounds(project["build-system"]["requires"])["setuptools"]
    assert found == wanted(project, *EXTRAS) and {"mpi", "scalapack", "python@3.10:"} <= set(calls["depends_on"])


def test_conda(project) -> None:
    recipe = pytest.importorskip("yaml").safe_load((JOBS / "conda/recipe.yaml").read_text("utf-8"))
    assert recipe["schema_version"] == 1 and recipe["context"]["version"] == __version__
    assert ((JOBS / "conda" / recipe["source"]["path"]) / "pyproject.toml").resolve() == ROOT / "pyproject.toml"
    needed = recipe["requirements"]
    run = bounds([line.replace("matplotlib-base", "matplotlib") for line in needed["run"]])
    assert run.pop("scalapack") and f">={run.pop('python')}" == project["project"]["requires-python"]
    assert run == wanted(project)
    assert run | bounds(needed["run_constraints"]) == wanted(project, *EXTRAS)
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {where}" for name, where in project["project"]["scripts"].items()
    ]


@pytest.mark.parametrize("script", sorted([*JOBS.glob("*.sh"), *JOBS.glob("*.sbatch")]), ids=lambda path: path.name)
def test_shell_scripts_parse(script) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(("way", "bin_first"), [("debian", ".venv/bin"), ("wheels", ".venv-wheels/bin")])
def test_env_never_mixes_the_two_ways(way, bin_first) -> None:
    """After the other way, in the same shell: one environment on PATH, Debian's petsc4py only beside Debian's MPI."""
    other = {"debian": "wheels", "wheels": "debian"}[way]
    script = f"""
    export PETSC_DIR=/usr/lib/petscdir/petsc3.18/x86_64-linux-gnu-real PYTHONPATH=/mine
    for way in {other} {way}; do MPGLS_INSTALL=$way; . jobs/env.sh; done
    echo "$PATH"; echo "$PYTHONPATH"; echo "${{PETSC_DIR:-none}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    path, python_path, petsc = done.stdout.splitlines()
    mine = [folder for folder in path.split(":") if folder.startswith(f"{ROOT}/.venv")]
    assert path.startswith(f"{ROOT}/{bin_first}:") and mine == [f"{ROOT}/{bin_first}"]
    assert "/mine" in python_path.split(":")
    assert (petsc == "none" and "petsc" not in python_path) or way == "debian"


@pytest.mark.skipif(shutil.which("ar") is None, reason="needs ar")
def test_a_member_of_an_ar_archive(tmp_path) -> None:
    """Against binutils: odd sizes are padded."""
    spec = importlib.util.spec_from_file_location("mouse_data", JOBS / "mouse_data.py")
    mouse_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mouse_data)
    contents = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": b"mice"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    subprocess.run(["ar", "q", "a.deb", *contents], cwd=tmp_path, check=True, capture_output=True)
    deb = (tmp_path / "a.deb").read_bytes()
    assert mouse_data.member(deb, "data.tar") == b"mice" and mouse_data.member(deb, "control") == b"odd"
    with pytest.raises(OSError, match="no no-such"):
        mouse_data.member(deb, "no-such")
