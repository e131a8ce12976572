"""``mpgls kinship`` against dense NumPy, on any number of ranks."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from mpi4py import MPI
from ranks import few_ranks
from small_study import assert_left_alone, on_root, read_facts, read_kinship, read_plink, write_genotypes, write_lines

import mpgls
from mpgls.errors import InputError, MemoryPlanError, Stopped, UsageError
from mpgls.mpi import StopSignal
from mpgls.study.grm import open_kinship

N, M = 83, 211


def simulated(comm, prefix, **options):
    """Simulate a fileset."""
    mpgls.simulate(samples=N, snps=M, out=prefix, covariates=0, seed=5, comm=comm, **options)


@pytest.fixture(scope="module")
def made(module_comm, module_folder):
    """A fileset with missing genotypes on three chromosomes; the first SNP does not vary."""
    prefix = module_folder / "g"
    simulated(module_comm, prefix, chromosomes=3, missing=0.04)

    def change():
        dosages = read_plink(prefix).dosages
        dosages[:, 0] = np.where(np.isnan(dosages[:, 0]), np.nan, 2.0)
        write_genotypes(prefix, dosages)

    on_root(module_comm, change)
    return module_folder


@pytest.fixture
def plink(comm, made, shared_tmp_path):
    """A copy for one test to change."""
    on_root(comm, lambda: shutil.copytree(made, shared_tmp_path, dirs_exist_ok=True))
    return shared_tmp_path / "g"


def make(comm, prefix, out, **options):
    """Run the command; returns the matrix that it wrote."""
    mpgls.kinship(bfile=prefix, out=out, threads=1, comm=comm, **options)
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
    K = make(comm, plink, shared_tmp_path / "k", method=method, block_size=block_size)
    np.testing.assert_allclose(K, dense(read_plink(plink), method), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(K, K.T)


def test_does_not_depend_on_the_ranks(comm, shared_tmp_path, plink):
    together = make(comm, plink, shared_tmp_path / "k")
    if comm.rank == 0:
        alone = make(MPI.COMM_SELF, plink, shared_tmp_path / "alone")
        np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-13)


def with_gaps(comm, prefix, gaps):
    """Replace the genotypes: missing ones in the SNPs ``gaps`` only, A1 rare in some SNPs and common in others."""
    if comm.rank == 0:
        rng = np.random.default_rng(11)
        dosages = rng.binomial(2, np.concatenate([np.full(9, 0.02), np.linspace(0.05, 0.99, M - 9)]), (N, M)) * 1.0
        holes = rng.random((N, M)) < 0.1
        holes[:, np.setdiff1d(np.arange(M), gaps)] = False
        write_genotypes(prefix, np.where(holes, np.nan, dosages))
    comm.Barrier()


@pytest.mark.parametrize("block_size", [None, 1, 10, 57])
@pytest.mark.parametrize(
    "gaps", [[], np.arange(20, 40), np.arange(0, M, 2), [M - 1]], ids=["none", "run", "odd", "one"]
)
def test_gaps_in_some_snps(comm, shared_tmp_path, plink, gaps, block_size):
    with_gaps(comm, plink, gaps)
    K = make(comm, plink, shared_tmp_path / "k", block_size=block_size)
    np.testing.assert_allclose(K, dense(read_plink(plink)), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(K, K.T)


@pytest.mark.parametrize("gaps", [[], np.arange(0, M, 2)], ids=["none", "odd"])
def test_gaps_in_some_snps_of_chromosomes(comm, shared_tmp_path, plink, gaps):
    with_gaps(comm, plink, gaps)
    K, files = make(comm, plink, shared_tmp_path / "k", loco=True), read_plink(plink)
    np.testing.assert_allclose(K, dense(files), rtol=1e-12, atol=1e-14)
    for label in "123":
        own = files.chromosomes == label
        found = open_kinship(shared_tmp_path / "k.h5").without(label).rows(0, N)
        np.testing.assert_allclose(found, dense(files, snps=~own), rtol=1e-12, atol=1e-13)


def test_whole_numbers_have_the_same_bits_on_any_number_of_ranks(comm, shared_tmp_path, plink):
    """Without gaps K is a quotient of whole numbers, n^2 sum gg' - n (r 1' + 1 r') + s's over n^2 m, to rounding."""
    with_gaps(comm, plink, [])
    together = make(comm, plink, shared_tmp_path / "k", block_size=20)
    if comm.rank == 0:
        np.testing.assert_array_equal(together, make(MPI.COMM_SELF, plink, shared_tmp_path / "alone", block_size=7))
        G = read_plink(plink).dosages.astype(np.int64)
        G = G[:, np.ptp(G, axis=0) > 0]
        s = G.sum(axis=0)
        r = G @ s
        exact = N**2 * (G @ G.T) - N * (r[:, None] + r) + s @ s
        np.testing.assert_allclose(together, exact / (N**2 * G.shape[1]), rtol=1e-14, atol=1e-15)


@few_ranks
def test_snp_filters(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    wanted = [*files.snps[10:190], "rs_unknown"]
    if comm.rank == 0:
        write_lines(shared_tmp_path / "extract.txt", wanted)
    comm.Barrier()
    extract = shared_tmp_path / "extract.txt"
    K = make(comm, plink, shared_tmp_path / "k", chr="1,3", extract=extract, maf=0.1, geno=0.05)

    frequency = files.frequency()
    passing = np.isin(files.snps, wanted) & np.isin(files.chromosomes, ["1", "3"])
    passing &= (np.minimum(frequency, 1 - frequency) >= 0.1) & (files.missing() <= 0.05)
    assert 20 < passing.sum() < 120
    np.testing.assert_allclose(K, dense(files, snps=passing), rtol=1e-12, atol=1e-12)
    assert read_facts(shared_tmp_path / "k")["snps"] == passing.sum()


@few_ranks
def test_kept_samples_set_the_means(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    rows = np.arange(3, N, 2)
    if comm.rank == 0:
        write_lines(shared_tmp_path / "keep.txt", [files.ids[row] for row in rows[::-1]])
    comm.Barrier()
    K = make(comm, plink, shared_tmp_path / "k", keep=str(shared_tmp_path / "keep.txt"))
    np.testing.assert_allclose(K, dense(files, rows=rows), rtol=1e-12, atol=1e-12)
    assert open_kinship(shared_tmp_path / "k.h5").ids == [files.ids[row] for row in rows]


@few_ranks
def test_incomplete_samples_are_left_out(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    missing = np.isnan(files.dosages).mean(axis=1)
    limit = float(np.sort(missing)[N // 2])
    make(comm, plink, shared_tmp_path / "k", mind=limit)
    ids = [name for name, share in zip(files.ids, missing, strict=True) if share <= limit]
    assert 1 < len(ids) < N
    assert open_kinship(shared_tmp_path / "k.h5").ids == ids


@few_ranks
def test_gcta_files_hold_the_same_matrix(comm, shared_tmp_path, plink):
    K = make(comm, plink, shared_tmp_path / "k", grm_bin=True)
    packed = open_kinship(shared_tmp_path / "k.grm.bin")
    assert packed.ids == read_plink(plink).ids and packed.snps == M - 1
    np.testing.assert_array_equal(packed.rows(0, N), np.tril(K).astype(np.float32))


def test_fewer_samples_than_ranks(comm, shared_tmp_path):
    mpgls.simulate(samples=2, snps=9, out=shared_tmp_path / "g", families=1, causal=1, seed=3, comm=comm)
    K = make(comm, shared_tmp_path / "g", shared_tmp_path / "k")
    np.testing.assert_allclose(K, dense(read_plink(shared_tmp_path / "g")), rtol=1e-12, atol=1e-14)


@few_ranks
def test_no_snp_left_is_an_error_and_leaves_no_matrix(comm, shared_tmp_path, plink):
    with pytest.raises(InputError, match="no SNP is left"):
        make(comm, plink, shared_tmp_path / "k", maf=0.5, geno=0.0)
    comm.Barrier()
    assert not list(shared_tmp_path.glob("k.h5*"))


@few_ranks
def test_a_matrix_is_not_written_over_its_input(comm, shared_tmp_path, plink):
    keep = shared_tmp_path / "k.h5"
    if comm.rank == 0:
        write_lines(keep, read_plink(plink).ids)
    comm.Barrier()
    with pytest.raises(UsageError, match="overwrite"):
        make(comm, plink, shared_tmp_path / "k", keep=str(keep))
    assert keep.exists()


def gcta(G):
    """GCTA's formula in NumPy: K over the SNPs that both people have, and their number."""
    mean = np.nanmean(G, axis=0)
    varies = np.nanmax(G, axis=0) > np.nanmin(G, axis=0)
    has, X, mean = ~np.isnan(G[:, varies]), G[:, varies] - mean[varies], mean[varies]
    X = np.where(has, X, 0.0) / np.sqrt(mean * (1.0 - mean / 2.0))
    count = has.astype(float) @ has.T
    return X @ X.T / count, count


@pytest.mark.parametrize("block_size", [None, 1, 50])
def test_gcta_over_the_snps_that_both_people_have(comm, shared_tmp_path, plink, block_size):
    if comm.rank == 0:
        rng = np.random.default_rng(7)
        dosages = read_plink(plink).dosages
        dosages[rng.random(dosages.shape) < np.linspace(0.0, 0.6, M)] = np.nan  # some SNPs have no gap
        write_genotypes(plink, dosages)
    comm.Barrier()
    K = make(comm, plink, shared_tmp_path / "k", method="gcta", grm_bin=True, block_size=block_size)
    expected, count = gcta(read_plink(plink).dosages)
    assert count.min() < 0.6 * count.max()
    np.testing.assert_allclose(K, expected, rtol=1e-12, atol=1e-12)
    lower = np.tril_indices(N)
    found = np.fromfile(shared_tmp_path / "k.grm.bin", dtype="<f4")
    np.testing.assert_allclose(found, expected[lower], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.fromfile(shared_tmp_path / "k.grm.N.bin", dtype="<f4"), count[lower])


@few_ranks
@pytest.mark.skipif(shutil.which("plink2") is None, reason="needs plink2")
def test_gcta_is_that_of_plink2(comm, shared_tmp_path):
    made, ours, theirs = (str(shared_tmp_path / name) for name in "gkp")
    simulated(comm, made, missing=0.26)
    make(comm, made, ours, method="gcta", grm_bin=True)
    if comm.rank == 0:
        command = ["plink2", "--bfile", made, "--nonfounders", "--maf", "1e-9", "--make-grm-bin", "--out", theirs]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        for suffix in ("bin", "N.bin"):
            found, expected = (np.fromfile(f"{name}.grm.{suffix}", dtype="<f4") for name in (ours, theirs))
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@few_ranks
def test_gcta_without_missing_genotypes_divides_by_hardy_and_weinberg(comm, shared_tmp_path):
    simulated(comm, shared_tmp_path / "g")
    K = make(comm, shared_tmp_path / "g", shared_tmp_path / "k", method="gcta")
    np.testing.assert_allclose(K, gcta(read_plink(shared_tmp_path / "g").dosages)[0], rtol=1e-12, atol=1e-12)


@few_ranks
def test_gcta_of_two_people_without_a_common_snp(comm, shared_tmp_path, plink):
    files = read_plink(plink)
    if comm.rank == 0:
        dosages = files.dosages
        dosages[5, ::2] = dosages[60, 1::2] = np.nan
        write_genotypes(plink, dosages)
    comm.Barrier()
    with pytest.raises(InputError, match="have no SNP in common") as caught:
        make(comm, plink, shared_tmp_path / "k", method="gcta")
    assert all(files.ids[row][1] in str(caught.value) for row in (5, 60))
    comm.Barrier()
    assert not list(shared_tmp_path.glob("k.h5*"))


@few_ranks
def test_gcta_has_no_sums_of_chromosomes(comm, shared_tmp_path, plink):
    with pytest.raises(UsageError, match="--method gcta has one for each pair"):
        make(comm, plink, shared_tmp_path / "k", method="gcta", loco=True)


@few_ranks
def test_a_complete_run_is_left_alone(comm, shared_tmp_path, plink):
    out = shared_tmp_path / "k"
    make(comm, plink, out)
    assert_left_alone(out, lambda: make(comm, plink, out, resume=True, block_size=7))
    with pytest.raises(InputError, match="--method was not given, now it is standardized"):
        make(comm, plink, out, resume=True, method="standardized")


def test_a_stopped_run_says_how_to_go_on(comm, shared_tmp_path, plink, monkeypatch):
    left = [3]

    def problem(signal, *_):
        left[0] -= 1
        return Stopped(f"stopped by a signal; {signal.advice}") if left[0] < 0 else None

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "problem", problem)
        with pytest.raises(Stopped, match=r"go on with: mpgls kinship .* --resume"):
            make(comm, plink, shared_tmp_path / "k", block_size=20)
    comm.Barrier()
    assert not list(shared_tmp_path.glob("k.h5*"))
    comm.Barrier()
    K = make(comm, plink, shared_tmp_path / "k", block_size=20, resume=True)
    np.testing.assert_allclose(K, dense(read_plink(plink)), rtol=1e-12, atol=1e-12)


@few_ranks
def test_too_little_memory_is_refused(comm, shared_tmp_path, plink):
    with pytest.raises(MemoryPlanError, match="the kinship needs"):
        make(comm, plink, shared_tmp_path / "k", memory=0.001)
