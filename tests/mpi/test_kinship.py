"""``mpgls kinship`` against dense NumPy, on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI
from small_study import read_facts, read_kinship, read_plink, write_genotypes, write_lines

from mpgls.commands import kinship, simulate
from mpgls.commands.common.inputs import StudyOptions
from mpgls.commands.common.session import RunOptions
from mpgls.commands.kinship import KinshipConfig
from mpgls.commands.simulate import SimulateConfig
from mpgls.errors import InputError, UsageError
from mpgls.study.filters import SnpFilter
from mpgls.study.grm import open_kinship

N, M = 83, 211


@pytest.fixture
def plink(comm, shared_tmp_path):
    """A fileset with missing genotypes on three chromosomes; the first SNP does not vary."""
    prefix = shared_tmp_path / "g"
    simulate.run(SimulateConfig(N, M, str(prefix), chromosomes=3, missing=0.04, covariates=0, seed=5), comm)
    if comm.rank == 0:
        dosages = read_plink(prefix).dosages
        dosages[:, 0] = np.where(np.isnan(dosages[:, 0]), np.nan, 2.0)
        write_genotypes(prefix, dosages)
    comm.Barrier()
    return prefix


def make(comm, prefix, out, method="centered", grm_bin=False, block_size=None, loco=False, **study):
    """Run the command; returns the matrix that it wrote."""
    config = KinshipConfig(
        RunOptions(str(out), threads=1), StudyOptions(str(prefix), **study), method, grm_bin, loco, block_size
    )
    kinship.run(config, comm)
    comm.Barrier()
    return read_kinship(f"{out}.h5")


def dense(files, method="centered", rows=slice(None), snps=slice(None)):
    """K = 1/m sum of x x' over the SNPs that vary among the samples."""
    X = files.centred(rows)[:, snps]
    X = X[:, X.any(axis=0)]
    if method == "standardized":
        X = X / X.std(axis=0)
    return X @ X.T / X.shape[1]


@pytest.mark.parametrize("method", ["centered", "standardized"])
@pytest.mark.parametrize("block_size", [None, 1, 50, 1000])
def test_equals_the_dense_product(comm, shared_tmp_path, plink, method, block_size):
    K = make(comm, plink, shared_tmp_path / "k", method, block_size=block_size)
    np.testing.assert_allclose(K, dense(read_plink(plink), method), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(K, K.T)


def test_does_not_depend_on_the_ranks(comm, shared_tmp_path, plink):
    together = make(comm, plink, shared_tmp_path / "k")
    if comm.rank == 0:
        alone = make(MPI.COMM_SELF, plink, shared_tmp_path / "alone")
        np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-13)


def test_snp_filters(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    wanted = [*files.snps[10:190], "rs_unknown"]
    if comm.rank == 0:
        write_lines(shared_tmp_path / "extract.txt", wanted)
    comm.Barrier()
    chosen = SnpFilter(chromosomes=("1", "3"), extract=str(shared_tmp_path / "extract.txt"), maf=0.1, geno=0.05)
    K = make(comm, plink, shared_tmp_path / "k", snps=chosen)

    frequency = files.frequency()
    passing = np.isin(files.snps, wanted) & np.isin(files.chromosomes, ["1", "3"])
    passing &= (np.minimum(frequency, 1 - frequency) >= 0.1) & (files.missing() <= 0.05)
    assert 20 < passing.sum() < 120
    np.testing.assert_allclose(K, dense(files, snps=passing), rtol=1e-12, atol=1e-12)
    assert read_facts(shared_tmp_path / "k")["snps"] == passing.sum()


def test_kept_samples_set_the_means(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    rows = np.arange(3, N, 2)
    if comm.rank == 0:
        write_lines(shared_tmp_path / "keep.txt", [files.ids[row] for row in rows[::-1]])
    comm.Barrier()
    K = make(comm, plink, shared_tmp_path / "k", keep=str(shared_tmp_path / "keep.txt"))
    np.testing.assert_allclose(K, dense(files, rows=rows), rtol=1e-12, atol=1e-12)
    assert open_kinship(shared_tmp_path / "k.h5").ids == [files.ids[row] for row in rows]


def test_incomplete_samples_are_left_out(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    missing = np.isnan(files.dosages).mean(axis=1)
    limit = float(np.sort(missing)[N // 2])
    make(comm, plink, shared_tmp_path / "k", mind=limit)
    ids = [name for name, share in zip(files.ids, missing, strict=True) if share <= limit]
    assert 1 < len(ids) < N
    assert open_kinship(shared_tmp_path / "k.h5").ids == ids


def test_gcta_files_hold_the_same_matrix(comm, shared_tmp_path, plink):
    K = make(comm, plink, shared_tmp_path / "k", grm_bin=True)
    packed = open_kinship(shared_tmp_path / "k.grm.bin")
    assert packed.ids == read_plink(plink).ids and packed.snps == M - 1
    np.testing.assert_array_equal(packed.rows(0, N), np.tril(K).astype(np.float32))


def test_fewer_samples_than_ranks(comm, shared_tmp_path):
    simulate.run(SimulateConfig(2, 9, str(shared_tmp_path / "g"), family_size=1, causal=1, seed=3), comm)
    K = make(comm, shared_tmp_path / "g", shared_tmp_path / "k")
    np.testing.assert_allclose(K, dense(read_plink(shared_tmp_path / "g")), rtol=1e-12, atol=1e-14)


def test_no_snp_left_is_an_error_and_leaves_no_matrix(comm, shared_tmp_path, plink):
    with pytest.raises(InputError, match="no SNP is left"):
        make(comm, plink, shared_tmp_path / "k", snps=SnpFilter(maf=0.5, geno=0.0))
    assert not (shared_tmp_path / "k.h5").exists()


def test_a_matrix_is_not_written_over_its_input(comm, shared_tmp_path, plink):
    keep = shared_tmp_path / "k.h5"
    if comm.rank == 0:
        write_lines(keep, read_plink(plink).ids)
    comm.Barrier()
    with pytest.raises(UsageError, match="overwrite"):
        make(comm, plink, shared_tmp_path / "k", keep=str(keep))
    assert keep.exists()
