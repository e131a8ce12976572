"""``mpgls simulate`` and ``mpgls doctor`` on any number of ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mpi4py import MPI
from ranks import few_ranks

import mpgls
from mpgls.commands import simulate
from mpgls.errors import MpglsError, StorageError, UsageError
from mpgls.study.plink import open_fileset
from mpgls.study.tables import read_table


def test_bytes_do_not_depend_on_the_ranks(comm, shared_tmp_path):
    study = {"samples": 203, "snps": 3001, "traits": 3, "chromosomes": 5, "missing": 0.03, "seed": 7}
    made = mpgls.simulate(**study, out=str(shared_tmp_path / "all"), comm=comm)
    assert set(made.tables) == {"pheno", "covar", "causal"}
    if comm.rank == 0:
        alone = mpgls.simulate(**study, out=str(shared_tmp_path / "alone"), comm=MPI.COMM_SELF)
        assert len(made.files) == 6
        for mine, other in zip(alone.files, made.files, strict=True):
            assert mine.read_bytes() == other.read_bytes(), mine.name
        assert not list(shared_tmp_path.glob("*.partial"))


def test_files_read_back(comm, shared_tmp_path):
    prefix = shared_tmp_path / "g"
    mpgls.simulate(samples=37, snps=211, out=str(prefix), traits=2, covariates=3, causal=4, families=3, comm=comm)
    if comm.rank == 0:
        files = open_fileset(str(prefix))
        assert (files.bed.n, files.bed.m) == (37, 211)
        ids = files.samples.ids()
        assert len(set(ids)) == 37
        pheno, covar = read_table(f"{prefix}.pheno.tsv"), read_table(f"{prefix}.covar.tsv")
        assert pheno.ids == covar.ids == ids
        assert pheno.names == ("trait1", "trait2") and covar.names == ("covar1", "covar2", "covar3")
        np.testing.assert_array_equal(pheno.values[:, 0], files.samples.phenotype)
        names = set(files.variants.read(0, 211).id)
        lines = (shared_tmp_path / "g.causal.tsv").read_text().splitlines()
        assert lines[0] == "trait\tSNP\teffect" and len(lines) == 1 + 2 * 4
        assert all(line.split("\t")[1] in names for line in lines[1:])


def test_fewer_blocks_than_ranks_and_no_tables(comm, shared_tmp_path):
    mpgls.simulate(samples=5, snps=1, out=str(shared_tmp_path / "g"), causal=0, covariates=0, comm=comm)
    if comm.rank == 0:
        assert open_fileset(str(shared_tmp_path / "g")).bed.m == 1
        assert not (shared_tmp_path / "g.covar.tsv").exists()


@few_ranks
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"samples": 1}, "--samples"),
        ({"snps": 0}, "--snps"),
        ({"h2": 1.5}, "--h2"),
        ({"h2": float("nan")}, "--h2"),
        ({"missing": -0.1}, "--missing"),
        ({"founders": 1000}, "--founders"),
        ({"causal": 99}, "--causal"),
        ({"families": 0}, "--families"),
        ({"out": ""}, "--out"),
    ],
)
def test_bad_options(comm, shared_tmp_path, change, name):
    with pytest.raises(UsageError, match=name):
        mpgls.simulate(**{"samples": 10, "snps": 20, "out": str(shared_tmp_path / "g"), **change}, comm=comm)
    assert not list(shared_tmp_path.iterdir())


@few_ranks
def test_default_options_suit_small_numbers(comm, shared_tmp_path):
    mpgls.simulate(samples=2, snps=3, out=str(shared_tmp_path / "g"), families=2, causal=3, comm=comm)


def test_unwritable_output(comm, shared_tmp_path):
    with pytest.raises(StorageError, match="there is no directory"):
        mpgls.simulate(samples=10, snps=20, out=str(shared_tmp_path / "absent" / "g"), comm=comm)


def test_one_rank_failing_leaves_nothing_behind(comm, shared_tmp_path, monkeypatch):
    last = comm.size - 1

    def full(*_args: object) -> None:
        raise StorageError("cannot write g.bed: No space left on device")

    if comm.rank == last:
        monkeypatch.setattr(simulate, "_write_at", full)
    with pytest.raises(StorageError, match="No space left"):
        mpgls.simulate(samples=50, snps=4000, out=str(shared_tmp_path / "g"), comm=comm)
    comm.Barrier()
    assert [path.name for path in shared_tmp_path.iterdir()] == ["g.log"]


def test_doctor_reports_rates(comm, shared_tmp_path, capsys, request):
    if comm.size > 2:  # the true sizes are for ranks that have a core each
        request.getfixturevalue("small_probes")
    target = shared_tmp_path / "doctor.json"
    results = mpgls.doctor(directory=str(shared_tmp_path), threads=1, json=str(target), comm=comm, verbose=True)
    printed = capsys.readouterr().out
    if comm.rank == 0:
        facts = json.loads(target.read_text())
        assert results.manifest["gemm_gflops_double"] == facts["gemm_gflops_double"]
        assert facts["ranks"] == comm.size and facts["threads"] == 1 and facts["ready"] is True
        assert 0 < facts["gemm_gflops_double"] <= facts["gemm_gflops_double_largest"]
        assert facts["gemm_gflops_single"] > 0 and facts["read_mb_per_s"] > 0
        assert sum(node["ranks"] for node in facts["nodes"]) == comm.size
        assert "scalapack" in facts["scalapack"] and facts["launcher_agrees"]
        assert printed.endswith("verdict: ready\n")
        assert [path.name for path in shared_tmp_path.iterdir()] == ["doctor.json"]
    else:
        assert printed == ""


@pytest.mark.usefixtures("small_probes")
def test_doctor_names_problems(comm, shared_tmp_path, capsys):
    with pytest.raises(MpglsError, match="1 problem"):
        mpgls.doctor(directory=str(shared_tmp_path / "absent"), threads=1, comm=comm, verbose=True)
    if comm.rank == 0:
        assert "No such file" in capsys.readouterr().out


@few_ranks
@pytest.mark.usefixtures("small_probes")
def test_doctor_bad_options(comm, shared_tmp_path):
    with pytest.raises(UsageError, match="--threads"):
        mpgls.doctor(threads=0, comm=comm)
    with pytest.raises(StorageError, match="absent"):
        mpgls.doctor(
            directory=str(shared_tmp_path), threads=1, json=str(shared_tmp_path / "absent" / "x.json"), comm=comm
        )
