"""What surrounds a run: locales without letters, standard streams that are closed or full, a shell of srun --pty."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launch import environment, mpgls, must_succeed, program

from mpgls.errors import StorageError
from mpgls.run import log
from mpgls.run.log import Log

NAME = b"gr\xf6\xdfe".decode("utf-8", "surrogateescape")  # as a computer with Latin-1 names files
TRAIT = "Größe_身長"
POSIX = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
PLAN = "plan low-rank --samples 1000 --snps 1000 --similarity-count 100 --ranks 2"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Genotypes and a trait whose names have letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("grüße")
    must_succeed(0, "simulate --samples 40 --snps 60 --chromosomes 2 --seed 3 --out sim", folder)
    for ending in ("bed", "bim", "fam"):
        (folder / f"sim.{ending}").rename(folder / f"{NAME}.{ending}")
    table = (folder / "sim.pheno.tsv").read_text("utf-8").replace("trait1", TRAIT, 1)
    (folder / "p.txt").write_text(table, "utf-8")
    must_succeed(0, ["kinship", "--bfile", NAME, "--out", "K"], folder, PYTHONIOENCODING="utf-8:backslashreplace")
    return folder


@pytest.mark.parametrize(
    ("ranks", "settings"), [(0, POSIX), (0, {"PYTHONIOENCODING": "ascii"}), (2, {"PYTHONIOENCODING": "latin-1"})]
)
def test_a_terminal_without_letters_gets_escapes(study, ranks, settings):
    scan = ["single-trait", "--bfile", NAME, "--pheno", "p.txt", "--pheno-name", TRAIT, "--grm", "K.h5", "--no-plots"]
    command = [*program(), *scan, "--out", "größe"]
    if ranks:
        command = ["mpirun", "-n", str(ranks), *command]
    done = subprocess.run(command, cwd=study, env=environment(**settings), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u8eab\\u9577: h2" in done.stdout
    assert (study / f"größe.{TRAIT}.tsv").read_text("utf-8").startswith("CHR\t")
    assert f"{TRAIT}: h2" in (study / "größe.log").read_text("utf-8")


def test_the_stream_of_the_user_is_left_as_it_is(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    Log(0).info("ä")
    assert sys.stdout is stream and (stream.encoding, stream.errors) == ("ascii", "strict")
    assert stream.buffer.getvalue().endswith(b"\\xe4\n")  # type: ignore[attr-defined]


def test_a_log_goes_on_when_standard_output_is_full(monkeypatch, tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(StorageError, match="cannot write to standard output: No space left"):
            log.stdout("one")
        both = Log(0, tmp_path / "a.log")
        both.info("two")
        both.info("three")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert [line.split("  ")[-1][:5] for line in lines] == ["two", "WARNI", "three"]


@pytest.mark.parametrize(("redirected", "code"), [("| true", 0), (">/dev/full", 5), (">&-", 0)])
def test_standard_output_that_takes_nothing(tmp_path, redirected, code):
    arguments = ["bash", "-c", f'set -o pipefail; "$@" {redirected}', "bash", *program(), "plan", "--help"]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr == ("mpgls: cannot write to standard output: No space left on device\n" if code else "")


def slurm_step(tasks: int) -> dict[str, str]:
    """What a process of a Slurm step finds, without PMI."""
    one = {"SLURM_JOB_ID": "1", "SLURM_JOBID": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEPID": "0"}
    nodes = dict.fromkeys(("SLURM_NODELIST", "SLURM_JOB_NODELIST", "SLURM_STEP_NODELIST"), "n01")
    return one | nodes | {"SLURM_NTASKS": str(tasks), "SLURM_STEP_NUM_TASKS": str(tasks)}


def test_a_process_alone_runs_in_a_slurm_step_without_pmi(study):
    assert "similarity SNPs" in must_succeed(0, PLAN, study, **slurm_step(1)).out


def test_several_tasks_without_pmi_are_told_what_to_do(study):
    """Open MPI would abort; other MPIs start each task alone."""
    vendor = subprocess.run(
        [sys.executable, "-c", "from mpi4py import MPI; print(MPI.get_vendor()[0])"], env=environment(),
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    ended = mpgls(0, PLAN, study, **slurm_step(4))
    assert ended.code == 2 and len(ended.sentences) == 1
    assert ended.sentences[0].startswith(
        "mpgls: srun started 4 tasks without PMI, so they cannot find each other: start with mpirun, or with "
        "srun --mpi=pmix" if vendor == "Open MPI" else
        "mpgls plan: the launcher started 4 ranks but MPI.COMM_WORLD holds 1: "
    )  # fmt: skip


AFTER_ANOTHER_RUN = """
import shutil, sys
from pathlib import Path
import numpy as np
from mpi4py import MPI
from mpgls.stream.reader import BlockReader, RowFiles, RowRuns

for folder in Path(sys.argv[1]).glob("ompi.*"):
    shutil.rmtree(folder)
reader = BlockReader(RowFiles((Path(sys.argv[2]),), 3, 2), [RowRuns.of(np.arange(3))])
print([rows.tolist() for _, rows in reader])
"""


def test_reading_goes_on_when_another_run_removes_the_folder_that_both_share(tmp_path):
    (tmp_path / "few.bed").write_bytes(bytes(range(9)))
    command = [sys.executable, "-c", AFTER_ANOTHER_RUN, str(tmp_path), str(tmp_path / "few.bed")]
    done = subprocess.run(command, env=environment(TMPDIR=str(tmp_path)), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[[[3, 4], [5, 6], [7, 8]]]\n", "", 0)
