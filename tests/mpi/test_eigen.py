"""``mpgls eigen`` against NumPy, on any number of ranks."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ranks import few_ranks
from small_study import on_root, read_facts, write_kinship, write_lines

import mpgls
from mpgls.errors import InputError, MemoryPlanError, StorageError, UsageError
from mpgls.la.eigen import split_options
from mpgls.stream.eigen_file import open_eigen_file

N = 113
IDS = [(f"F{k % 7}", f"i{k}") for k in range(N)]


def kinship():
    """Positive definite, its mean diagonal not 1, its leading eigenvalues apart."""
    rng = np.random.default_rng(12)
    X = rng.standard_normal((N, 40)) * np.geomspace(9, 0.1, 40)
    return X @ X.T / 40 + 0.05 * np.eye(N)


@pytest.fixture
def grm(comm, shared_tmp_path):
    path = shared_tmp_path / "K.h5"
    on_root(comm, lambda: write_kinship(path, IDS, kinship()))
    return path


def decompose(comm, grm, out="E", memory=None, **options):
    """Run the command. Returns the prefix of its outputs."""
    prefix = grm.parent / out
    mpgls.eigen(grm=grm, out=prefix, memory=memory, threads=1, comm=comm, **options)
    comm.Barrier()
    return prefix


def assert_decomposition(prefix, Phi, ids):
    """The file holds all eigenpairs of Phi scaled to mean diagonal 1."""
    file = open_eigen_file(f"{prefix}.h5")
    scaled, Z = Phi / np.mean(np.diag(Phi)), file.columns(0, len(ids)).T
    assert file.ids == ids and file.n == len(ids)
    np.testing.assert_allclose(file.lam, np.linalg.eigvalsh(scaled), rtol=1e-11, atol=1e-12 * file.lam[-1])
    np.testing.assert_allclose(Z.T @ Z, np.eye(len(ids)), atol=1e-12)
    np.testing.assert_allclose((Z * file.lam) @ Z.T, scaled, atol=1e-12 * file.lam[-1])
    assert float(file.attributes["mean_diagonal"]) == pytest.approx(np.mean(np.diag(Phi)), rel=1e-12)
    np.testing.assert_array_equal(file.columns(5, 9), Z.T[5:9])


@pytest.mark.parametrize("solver", ["auto", "scalapack", "slepc"])
def test_all_eigenpairs_and_their_checks(comm, grm, solver):
    if solver == "slepc":
        pytest.importorskip("slepc4py")
    prefix = decompose(comm, grm, eigensolver=solver)
    if comm.rank == 0:
        assert_decomposition(prefix, kinship(), IDS)
        log, facts = prefix.with_suffix(".log").read_text(), read_facts(prefix)
        assert "scaled residual" in log and "orthogonality" in log
        assert 0 < facts["residual"] < 30 and 0 < facts["orthogonality"] < 30
        assert ("SLEPc EPS" in facts["solver"]) or solver != "slepc"
        with h5py.File(f"{prefix}.h5") as file:
            assert file["eigenvectors"].chunks is None and "K.h5" in file.attrs["kinship"]


@few_ranks
def test_keep_and_remove_choose_the_samples(comm, grm):
    keep, remove = grm.parent / "keep", grm.parent / "remove"
    on_root(comm, lambda: (write_lines(keep, [*IDS[100:20:-1], ("X", "x")]), write_lines(remove, IDS[30:33])))
    prefix = decompose(comm, grm, keep=str(keep), remove=str(remove))
    if comm.rank == 0:
        kept = [k for k in range(21, 101) if k not in (30, 31, 32)]
        assert_decomposition(prefix, kinship()[np.ix_(kept, kept)], [IDS[k] for k in kept])
    on_root(comm, lambda: write_lines(keep, [("X", "x")]))
    with pytest.raises(InputError, match="no sample"):
        decompose(comm, grm, keep=str(keep))


@few_ranks
def test_a_kinship_can_be_centred(comm, grm):
    prefix = decompose(comm, grm, center_grm=True)
    if comm.rank == 0:
        C = np.eye(N) - 1.0 / N
        assert_decomposition(prefix, C @ kinship() @ C, IDS)


def test_packed_kinships(comm, shared_tmp_path):
    K, prefix = kinship(), shared_tmp_path / "K"

    def write():
        K[np.tril_indices(N)].astype("<f4").tofile(f"{prefix}.grm.bin")
        write_lines(f"{prefix}.grm.id", IDS)

    on_root(comm, write)
    made = decompose(comm, prefix)
    if comm.rank == 0:
        assert_decomposition(made, K.astype("f4").astype("f8"), IDS)


@pytest.mark.parametrize("k", [1, 5])
def test_leading_eigenpairs_and_principal_components(comm, grm, k):
    pytest.importorskip("slepc4py")
    prefix = decompose(comm, grm, eigenpairs=k)
    if comm.rank == 0:
        lam, Z = np.linalg.eigh(kinship() / np.mean(np.diag(kinship())))
        file = open_eigen_file(f"{prefix}.h5", complete=False)
        np.testing.assert_allclose(file.lam, lam[-k:], rtol=1e-10)
        vectors = file.columns(0, k)
        np.testing.assert_allclose(np.abs(np.sum(vectors.T * Z[:, -k:], axis=0)), 1.0, rtol=1e-10)
        lines = [line.split("\t") for line in (grm.parent / "E.pcs.tsv").read_text().splitlines()]
        assert lines[0] == ["FID", "IID", *(f"PC{i + 1}" for i in range(k))]
        assert [tuple(row[:2]) for row in lines[1:]] == IDS
        components = np.array([[float(text) for text in row[2:]] for row in lines[1:]])
        np.testing.assert_allclose(components, vectors[::-1].T, rtol=1e-15)
        with pytest.raises(InputError, match=f"only {k} of {N} eigenpairs"):
            open_eigen_file(f"{prefix}.h5")


@few_ranks
def test_files_that_are_not_what_they_should_be(comm, grm):
    with pytest.raises(InputError, match="not an eigendecomposition"):
        open_eigen_file(grm)
    on_root(comm, lambda: write_lines(grm.parent / "text.h5", ["x"]))
    with pytest.raises(InputError, match="not an eigendecomposition of mpgls: it is not an HDF5 file"):
        open_eigen_file(grm.parent / "text.h5")
    with pytest.raises(StorageError, match="there is no eigendecomposition"):
        open_eigen_file(grm.parent / "nothing.h5")
    comm.Barrier()
    decomposed = decompose(comm, grm)
    with pytest.raises(InputError, match=r"E\.h5"):
        decompose(comm, decomposed.with_suffix(".h5"), "again")


@few_ranks
def test_wishes_that_cannot_be_met(comm, grm):
    with pytest.raises(MemoryPlanError, match=r"eigendecomposition of 113 samples needs .* --memory"):
        decompose(comm, grm, memory=1e-3)
    with pytest.raises(UsageError, match="overwrite"):
        decompose(comm, grm, "K")
    for options in ({"eigensolver": "lapack"}, {"eigenpairs": 0}):
        with pytest.raises(UsageError, match="--eigen"):
            decompose(comm, grm, **options)


@few_ranks
def test_options_that_slepc_does_not_take(comm, grm):
    pytest.importorskip("slepc4py")
    for options, part in (("-eps_type nonsense", "nonsense"), ("-eps_tol abc", "abc"), ("foo", "'foo' follows no")):
        with pytest.raises(UsageError, match=f"--slepc-options '{options}': .*{part}"):
            decompose(comm, grm, eigensolver="slepc", slepc_options=options)
    assert split_options("-eps_target -1.5 -eps_view --eps_tol 1e-9") == [
        ("eps_target", "-1.5"), ("eps_view", ""), ("eps_tol", "1e-9")
    ]  # fmt: skip
    with pytest.raises(UsageError, match="No closing quotation"):
        split_options("-eps_type 'lapack")


@few_ranks
def test_a_table_of_an_earlier_run_goes_and_an_input_stays(comm, grm):
    pytest.importorskip("slepc4py")
    table = decompose(comm, grm, eigenpairs=2).with_suffix(".pcs.tsv")
    with pytest.raises(UsageError, match="overwrite its input"):
        decompose(comm, grm, keep=str(table), eigenpairs=2)
    assert table.exists()
    comm.Barrier()
    decompose(comm, grm)
    assert not table.exists()


@few_ranks
def test_a_complete_run_is_left_alone(comm, grm):
    prefix = decompose(comm, grm, "once")
    before = (grm.parent / "once.h5").stat().st_mtime_ns
    comm.Barrier()
    again = mpgls.eigen(grm=grm, out=prefix, resume=True, threads=1, comm=comm)
    assert (grm.parent / "once.h5").stat().st_mtime_ns == before
    assert [path.name for path in again.files] == ["once.h5"] and again.manifest["n"] == N
    comm.Barrier()
    with pytest.raises(InputError, match="--center-grm was not given, now it is given"):
        mpgls.eigen(grm=grm, out=prefix, resume=True, center_grm=True, threads=1, comm=comm)
