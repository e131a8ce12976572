"""Kinship files: mpgls HDF5, GCTA binary and GEMMA text."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_study import unchecked

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.chromosome_names import check_left_out
from mpgls.study.grm import Kinship, open_kinship, write_grm_id
from mpgls.study.kinship_h5 import create_kinship_h5, finish_kinship_h5

N = 7


def sample_ids(n: int = N) -> list[tuple[str, str]]:
    return [(f"f{k // 2}", f"Müller{k}") for k in range(n)]


def matrix(n: int = N) -> np.ndarray:
    G = np.random.default_rng(n).standard_normal((n, 2 * n))
    return G @ G.T / (2 * n)


def write_h5(folder: Path, Phi: np.ndarray) -> Path:
    path = folder / "k.h5"
    create_kinship_h5(path, sample_ids(len(Phi)), {"method": "centered", "snps": 2 * len(Phi)}).rows.write(0, Phi)
    return path


def write_gcta(folder: Path, Phi: np.ndarray) -> Path:
    prefix = folder / "k.v1"
    write_grm_id(prefix, sample_ids(len(Phi)))
    lower = np.tril_indices(len(Phi))
    Phi[lower].astype("<f4").tofile(f"{prefix}.grm.bin")
    np.full(len(lower[0]), 123, dtype="<f4").tofile(f"{prefix}.grm.N.bin")
    return prefix


def write_gemma(folder: Path, Phi: np.ndarray, tail: str = "\n") -> Path:
    path = folder / "k.cXX.txt"
    path.write_text("\n".join("\t".join(f"{value:.10g}" for value in row) for row in Phi) + tail)
    (folder / "k.fam").write_text("".join(f"{f} {i} 0 0 1 -9 NA\n" for f, i in sample_ids(len(Phi))))
    return path


WRITERS = {"h5": write_h5, "gcta": write_gcta, "gemma": write_gemma}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("n", [1, 2, N])
def test_every_form_gives_the_matrix_at_any_rows(tmp_path: Path, form: str, n: int) -> None:
    Phi = matrix(n)
    kinship = pickle.loads(pickle.dumps(open_kinship(WRITERS[form](tmp_path, Phi))))
    assert isinstance(kinship, Kinship)
    assert (kinship.n, kinship.ids, kinship.packed_lower) == (n, sample_ids(n), form == "gcta")
    assert kinship.snps == {"h5": 2 * n, "gcta": 123, "gemma": None}[form]
    expected = np.tril(Phi) if form == "gcta" else Phi
    tolerance = {"h5": 0, "gcta": 1e-7, "gemma": 1e-9}[form]
    for start in range(n + 1):
        for stop in range(start, n + 1):
            rows = kinship.rows(start, stop)
            assert rows.dtype == np.float64 and rows.shape == (stop - start, n)
            np.testing.assert_allclose(rows, expected[start:stop], rtol=tolerance, atol=tolerance)
    for start, stop in ((-1, 1), (0, n + 1), (1, 0)):
        with pytest.raises(ValueError, match="rows"):
            kinship.rows(start, stop)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_not_finite_name_their_samples(tmp_path: Path, form: str, value: float) -> None:
    Phi = matrix()
    Phi[5, 2] = value
    kinship = open_kinship(WRITERS[form](tmp_path, Phi))
    kinship.rows(0, 5)
    with pytest.raises(InputError, match="samples 'f2 Müller5' and 'f1 Müller2' is not a finite"):
        kinship.rows(4, 7)


def test_gcta_names_and_files(tmp_path: Path) -> None:
    prefix = write_gcta(tmp_path, matrix())
    for ending in ("", ".grm", ".grm.bin"):
        assert open_kinship(f"{prefix}{ending}").path == f"{prefix}.grm.bin"
    (tmp_path / "k.v1.grm.N.bin").unlink()
    assert open_kinship(prefix).snps is None
    other = tmp_path / "other.fam"
    other.write_text("".join(f"x {k} 0 0 0 0\n" for k in range(N)))
    assert open_kinship(prefix, other).ids[3] == ("x", "3")
    (tmp_path / "k.v1.grm.id").unlink()
    with pytest.raises(InputError, match=r"there is no file .*k\.v1\.grm\.id"):
        open_kinship(prefix)


def test_gcta_of_the_wrong_size(tmp_path: Path) -> None:
    prefix = write_gcta(tmp_path, matrix())
    write_grm_id(prefix, sample_ids(N - 1))
    with pytest.raises(InputError, match=r"grm\.bin holds 7 samples, but .*grm\.id lists 6"):
        open_kinship(prefix)
    write_grm_id(prefix, sample_ids())
    path = Path(f"{prefix}.grm.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"of 111 bytes is truncated .* take 112 bytes"):
        open_kinship(prefix)


@pytest.mark.parametrize("tail", ["", "\n", "\t\n", "\n\n \n"])
def test_gemma_line_ends(tmp_path: Path, tail: str) -> None:
    Phi = matrix()
    kinship = open_kinship(write_gemma(tmp_path, Phi, tail))
    np.testing.assert_allclose(kinship.rows(0, N), Phi, atol=1e-9)


def test_gemma_index_over_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpgls.study.grm._CHUNK", 13)
    Phi = matrix(11)
    kinship = open_kinship(write_gemma(tmp_path, Phi, "\n" + " " * 30 + "\n"))
    np.testing.assert_allclose(kinship.rows(3, 11), Phi[3:], atol=1e-9)


def test_gemma_ids(tmp_path: Path) -> None:
    path = write_gemma(tmp_path, matrix())
    fam = (tmp_path / "k.fam").rename(tmp_path / "mice.fam")
    with pytest.raises(InputError, match="--grm-id"):
        open_kinship(path)
    assert open_kinship(path, fam).ids == sample_ids()
    with pytest.raises(InputError, match=r"no file .*absent\.fam"):
        open_kinship(path, tmp_path / "absent.fam")
    with open(fam, "a") as stream:
        stream.write("new sample 0 0 0 0 0\n")
    with pytest.raises(InputError, match=r"has 7 rows and 7 columns, but .*mice\.fam lists 8 samples"):
        open_kinship(path, fam)
    fam.write_text("a b\nc d\na b\n")
    with pytest.raises(InputError, match="lists sample 'a b' twice"):
        open_kinship(path, fam)
    fam.write_text("")
    with pytest.raises(InputError, match="lists no samples"):
        open_kinship(path, fam)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: [*lines[:3], lines[3] + "\t1", *lines[4:]], "line 4: 8 numbers, expected 7"),
        (lambda lines: [*lines[:3], "", *lines[4:]], "line 4: 0 numbers, expected 7"),
        (lambda lines: [*lines[:3], "1 2 3 x 5 6 7", *lines[4:]], "line 4, column 4: 'x' is not a number"),
    ],
)
def test_gemma_bad_line(tmp_path: Path, edit: Callable[[list[str]], list[str]], message: str) -> None:
    path = write_gemma(tmp_path, matrix())
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    kinship = open_kinship(path)
    kinship.rows(0, 3)
    with pytest.raises(InputError, match=message):
        kinship.rows(2, 5)


def test_h5_layout(tmp_path: Path) -> None:
    path = tmp_path / "k.h5"
    offset = create_kinship_h5(path, sample_ids(), {"method": "standardized", "snps": 5}).rows.offset
    assert path.stat().st_size >= offset + 8 * N * N
    with h5py.File(path) as file:
        assert file["kinship"].shape == (N, N) and file["kinship"].dtype == np.dtype("<f8")
        assert file["kinship"].chunks is None and file["kinship"].id.get_offset() == offset
        assert h5py.check_string_dtype(file["iid"].dtype) == ("utf-8", len("Müller1".encode()))
        assert file["iid"].asstr()[1] == "Müller1" and file["fid"].asstr()[2] == "f1"
        about = dict(file.attrs)
        assert about.pop("sum") and about.pop("version") == 2
        assert about == {"method": "standardized", "snps": 5, "format": "mpgls-kinship"}
    with pytest.raises(StorageError, match="cannot write"):
        create_kinship_h5(tmp_path / "absent" / "k.h5", sample_ids(), {})
    with pytest.raises(StorageError, match="cannot write"):
        write_grm_id(tmp_path / "absent" / "k", sample_ids())


def test_h5_written_by_h5py_under_any_name(tmp_path: Path) -> None:
    path, Phi = tmp_path / "kinship", matrix()
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "mpgls-kinship", "version": 1})
        file["kinship"] = Phi
        file["fid"], file["iid"] = zip(*sample_ids(), strict=True)
    kinship = open_kinship(path)
    assert kinship.snps is None
    np.testing.assert_array_equal(kinship.rows(2, 6), Phi[2:6])
    with pytest.raises(UsageError, match="--grm-id"):
        open_kinship(path, tmp_path / "k.fam")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinship": np.eye(N - 1)}, "the matrix is 6 x 6, but there are 7 FIDs and 7 IIDs"),
        ({"kinship": np.ones(N)}, "the matrix is 7, but"),
        ({"iid": ["a"] * (N - 1)}, "7 FIDs and 6 IIDs"),
        ({"kinship": np.eye(N, dtype="f4")}, "contiguously as little-endian float64"),
        ({"kinship": None}, "not a readable kinship of mpgls"),
        ({"fid": ["a"] * N, "iid": ["b"] * N}, "sample 'a b' twice"),
        ({"format": "other"}, "not an mpgls kinship"),
        ({"version": 3}, "later version"),
    ],
)
def test_h5_that_does_not_fit(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_h5(tmp_path, matrix())
    with unchecked(path) as file:
        for name, value in change.items():
            if name in file.attrs:
                file.attrs[name] = value
                continue
            del file[name]
            if value is not None:
                file[name] = value
    with pytest.raises(InputError, match=message):
        open_kinship(path)


def test_h5_chunked_or_truncated(tmp_path: Path) -> None:
    path = write_h5(tmp_path, matrix())
    with h5py.File(path, "r+") as file:
        del file["kinship"]
        file.create_dataset("kinship", data=matrix(), chunks=(2, 3))
    with pytest.raises(InputError, match="contiguously"):
        open_kinship(path)
    path = write_h5(tmp_path, matrix())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated"):
        open_kinship(path)


def test_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    prefix = write_gcta(tmp_path, matrix())
    kinship = open_kinship(prefix)
    path = Path(kinship.path)
    path.write_bytes(path.read_bytes()[:-8])
    kinship.rows(0, 6)
    with pytest.raises(InputError, match="ends 2 numbers too early"):
        kinship.rows(5, 7)
    path.unlink()
    with pytest.raises(StorageError, match="cannot read"):
        kinship.rows(0, 1)


def test_no_kinship_and_unknown_form(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"neither that file nor .*absent\.grm\.bin exists"):
        open_kinship(tmp_path / "absent.grm")
    path = tmp_path / "k.csv"
    path.write_text("1,2\n")
    with pytest.raises(InputError, match="not a kinship that mpgls reads"):
        open_kinship(path)


def test_a_chromosome_is_left_out_under_any_of_its_names(tmp_path: Path) -> None:
    """mpgls kinship --loco of a file with X, scanned with SNPs of 23; and one with the two parts of XY."""
    n, rng = 4, np.random.default_rng(5)
    snps = {"01": 3, "X": 2, "PAR1": 4, "PAR2": 1, "MT": 0}
    sums = {label: rng.standard_normal((n, n)) for label in snps}
    sums["MT"][:] = 0
    ids = [("f", str(k)) for k in range(n)]
    path = tmp_path / "k.h5"
    file = create_kinship_h5(path, ids, {"method": "centered", "snps": 10}, list(snps))
    finish_kinship_h5(path, list(snps.values()), np.arange(10, dtype=np.uint64), {})
    file.rows.write(0, sum(sums.values()) / 10)
    for place in file.sums:
        place.rows.write(0, sums[place.chromosome])
    kinship = open_kinship(path)
    assert kinship.chromosomes() == ["01", "X", "PAR1", "PAR2"]
    for names, left_out in {
        ("1", "chr1", "01"): ["01"],
        ("23", "x", "chrX"): ["X"],
        ("25", "XY"): ["PAR1", "PAR2"],
        ("par2",): ["PAR2"],
        ("26", "MT", "5"): [],
    }.items():
        kept = [label for label in snps if label not in left_out]
        expected = sum(sums[label] for label in kept) / sum(snps[label] for label in kept)
        for name in names:
            assert kinship.snps_of(name) == sum(snps[label] for label in left_out)
            without = kinship.without(name)
            assert without.snps == 10 - kinship.snps_of(name)
            np.testing.assert_allclose(without.rows(1, 4), expected[1:4], rtol=1e-12, atol=1e-14)
    kept, wanted = kinship.kept(), kinship.without("X").rows(1, 4)
    np.testing.assert_array_equal(kept.without("X").rows(1, 4), wanted)
    file.rows.write(0, np.zeros((n, n)))  # which would show if the rows were read again
    np.testing.assert_array_equal(kept.without("X").rows(1, 4), wanted)
    assert check_left_out(["1", "23", "26"], kinship.chromosomes(), kinship.path)[0].startswith(
        f"{path} has no SNP of chromosome 26: nothing is left out for it"
    )


def test_ids_of_a_kinship_by_plink_2(tmp_path: Path) -> None:
    """plink2 --make-grm-bin writes a header, and no FID where everybody's is 0."""
    np.zeros(3, dtype="<f4").tofile(tmp_path / "k.grm.bin")
    (tmp_path / "k.grm.id").write_text("#IID\nb\na\n")
    assert open_kinship(tmp_path / "k").ids == [("0", "b"), ("0", "a")]
    kinship = open_kinship(tmp_path / "k", known=[("f1", "a"), ("f2", "b")])
    assert kinship.ids == [("f2", "b"), ("f1", "a")]
    assert "FID is that of the genotypes' sample" in kinship.summary
    (tmp_path / "k.grm.id").write_text("#FID\tIID\n#1\tb\n#\ta\n")
    assert open_kinship(tmp_path / "k").ids == [("#1", "b"), ("#", "a")]
