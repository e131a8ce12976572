"""Bytes that change on disk: what the checksums notice, and what each file says of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_images import AFFINE, SHAPE, small_mask
from small_study import unchecked

from mpgls.errors import InputError, StorageError
from mpgls.model.clusters import RECORD_DTYPE
from mpgls.model.histograms import Bins, Statistic
from mpgls.stream.eigen_file import open_eigen_file, write_eigen_file
from mpgls.stream.histogram_file import Histograms
from mpgls.stream.mark import Mark
from mpgls.stream.scratch import ScratchFile
from mpgls.stream.vgwas_files import load_maxima, open_entries, save_entries, save_maxima
from mpgls.study.checksums import ABSENT, checksum, row_checksums, segment_checksums
from mpgls.study.grm import open_kinship
from mpgls.study.images import SEGMENT, create_voxels, open_voxels
from mpgls.study.kinship_h5 import create_kinship_h5, finish_kinship_h5, read_keys

RNG = np.random.default_rng(1)
MARK = Mark({"command": "vgwas"})
WIDTHS = (1, 5, 511, 512, 513, 1030, 5000)
"""Numbers of a row: short ones and long ones, whole words and not."""
N = 700


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def place_of(path: Path, dataset: str, number: int) -> int:
    """The byte of the ``number``-th element of a contiguous dataset."""
    with h5py.File(path) as file:
        one = file[dataset]
        return int(one.id.get_offset()) + number * one.dtype.itemsize


# -- what is noticed --------------------------------------------------------------------------------------------------


def test_short_rows_have_the_crc_of_their_bytes():
    rows, more = RNG.standard_normal((3, 7)), np.arange(6, dtype=np.int32).reshape(3, 2)
    expected = [zlib.crc32(row.tobytes() + other.tobytes()) for row, other in zip(rows, more, strict=True)]
    assert row_checksums(rows, more).tolist() == expected == [checksum(*pair) for pair in zip(rows, more, strict=True)]


def test_long_rows_have_the_crc_of_their_folded_words():
    """Python's integers, word by word: t_r = sum a_c w_rc, u_c = sum w_rc, then the rest, all modulo 2^64."""
    row = RNG.standard_normal(3 * 128 + 140).astype("<f8")
    words = row.view("<u8").tolist()
    lines = [words[start : start + 128] for start in range(0, 4 * 128, 128)]
    a = [(2 * c + 1) * 0x9E3779B97F4A7C15 for c in range(128)]
    t = [sum(x * w for x, w in zip(a, line, strict=True)) for line in lines]
    u = [sum(column) for column in zip(*lines, strict=True)]
    folded = np.array([one % 2**64 for one in t + u + words[4 * 128 :]], dtype="<u8")
    assert row_checksums(row[None]).tolist() == [zlib.crc32(folded.tobytes())] == [checksum(row)]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_alone_has_the_checksum_that_it_has_among_others(width: int) -> None:
    rows, more = RNG.standard_normal((3, width)), RNG.standard_normal((3, 2 * width))
    assert row_checksums(rows, more).tolist() == [checksum(*pair) for pair in zip(rows, more, strict=True)]


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_flipped_bit_swapped_words_and_zeros_are_noticed(width: int, dtype: str) -> None:
    rows = RNG.standard_normal((4, width)).astype(dtype)
    rows[:, -1] = -rows[:, 0]  # equal but for the sign, which is the last bit of a sum modulo 2^64
    sums = row_checksums(rows)
    for _ in range(60):
        changed = rows.copy()
        i, word = RNG.integers(4), RNG.integers(width)
        changed[i : i + 1].view(np.uint8)[0, RNG.integers(rows[0].nbytes)] ^= np.uint8(1 << RNG.integers(8))
        assert (row_checksums(changed) != sums).tolist() == [k == i for k in range(4)]
        changed = rows.copy()
        changed[i, [word, -1]] = changed[i, [-1, word]]
        assert (row_checksums(changed)[i] != sums[i]) == (rows[i, word] != rows[i, -1])
        changed = rows.copy()
        changed[i, word : word + 64] = 0
        assert row_checksums(changed)[i] != sums[i]
    unit = np.eye(max(width, 2), dtype=dtype)
    assert len(set(row_checksums(unit[:300]).tolist())) == min(300, len(unit))  # no two rows may change places


def test_nothing_and_zeros():
    assert row_checksums(np.zeros((0, 5))).size == 0
    assert (row_checksums(np.zeros((3, 4096))) != ABSENT).all() and checksum(np.empty(0)) != ABSENT


def test_each_segment_of_a_row_has_its_own():
    rows = RNG.standard_normal((3, 2500)).astype("<f4")
    parts = [rows[:, :1024], rows[:, 1024:2048], rows[:, 2048:]]
    np.testing.assert_array_equal(segment_checksums(rows, 1024), [row_checksums(part) for part in parts])


# -- the kinds of files -----------------------------------------------------------------------------------------------


def kinship(folder: Path) -> Path:
    path, S = folder / "K.h5", RNG.standard_normal((2, N, N))
    S += S.transpose(0, 2, 1)
    file = create_kinship_h5(path, [("f", f"s{k}") for k in range(N)], {"method": "centered"}, ["1", "2"])
    for place, matrix in zip([file.rows, *(one.rows for one in file.sums)], [S.sum(axis=0) / 9, *S], strict=True):
        place.write(0, matrix)
    finish_kinship_h5(path, [4, 5], np.arange(9), {"snps": 9})
    return path


def eigen(folder: Path) -> Path:
    path = folder / "E.h5"
    Z = RNG.standard_normal((N, N))
    write_eigen_file(path, np.arange(N), Z, [("f", f"s{k}") for k in range(N)], {"solver": "test"})
    return path


def voxels(folder: Path) -> Path:
    path, mask = folder / "V.h5", np.ones((11, 13, 17), dtype=bool)
    coordinates = np.argwhere(mask)
    rows = create_voxels(path, [("f", f"s{k}") for k in range(5)], coordinates, mask.shape, AFFINE, "mask.nii")
    rows.write(0, RNG.standard_normal((5, len(coordinates))).astype("<f4"))
    return path


def read_all(path: Path) -> None:
    """Everything that a later command reads of a kinship or an eigendecomposition."""
    if path.name == "E.h5":
        file = open_eigen_file(path)
        file.columns(0, file.n)
        return
    if path.name == "V.h5":
        open_voxels(path).columns(0, open_voxels(path).v)
        return
    found = open_kinship(path)
    read_keys(str(path))
    found.rows(0, N)
    found.without("2").rows(0, N)


@pytest.mark.parametrize(
    ("make", "dataset", "number", "message"),
    [
        (kinship, "kinship", 412 * N + 699, r"K\.h5 is damaged: the row of sample 'f s412' in /kinship is not what"),
        (kinship, "loco/1", 3 * N, r"K\.h5 is damaged: the row of sample 'f s3' in /loco/1 is not what"),
        (kinship, "row_sums", 7, r"K\.h5 is damaged: the row of sample 'f s7' in /kinship"),
        (kinship, "iid", 5, r"K\.h5 is damaged: it is not what was written"),
        (kinship, "snps", 5, r"K\.h5 is damaged: its list of SNPs"),
        (eigen, "eigenvectors", 33 * N + 5, r"E\.h5 is damaged: eigenvector 34 of 700 is not what was written"),
        (eigen, "eigenvalues", 5, r"E\.h5 is damaged: it is not what was written"),
        (voxels, "voxels", 3 * 2431 + 1100, r"person 'f s3' from voxel \(4, 8, 4\) to \(9, 3, 7\) is not what"),
        (voxels, "coordinates", 5, r"V\.h5 is damaged: it is not what was written"),
    ],
)  # fmt: skip
def test_a_flipped_bit_of_an_input_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Path], dataset: str, number: int, message: str
) -> None:
    path = make(tmp_path)
    read_all(path)
    flip(path, place_of(path, dataset, number))
    with pytest.raises(InputError, match=message):
        read_all(path)


@pytest.mark.parametrize("make", [kinship, voxels])
def test_a_file_of_the_version_without_checksums_is_read_and_says_so(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    said = "made without checksums"
    opened = open_kinship if make is kinship else open_voxels
    assert said not in opened(path).summary
    with unchecked(path) as file:
        for name in ("row_sums", "voxel_sums"):
            file.pop(name, None)
    read_all(path)
    assert said in opened(path).summary


@pytest.mark.parametrize(("first", "stop"), [(0, 3), (1020, 1030), (2040, 2431), (2048, 2431), (7, 2400)])
def test_voxels_within_a_segment_are_checked_with_all_of_it(tmp_path: Path, first: int, stop: int) -> None:
    """Whoever reads a few voxels notices a change of any voxel of their segments, and of no other."""
    path = voxels(tmp_path)
    matrix = open_voxels(path)
    Y = matrix.columns(0, matrix.v)
    np.testing.assert_array_equal(matrix.columns(first, stop, np.array([4, 1])), Y[[4, 1], first:stop])
    for changed in (0, 1023, 1024, 2047, 2048, 2430):
        place = place_of(path, "voxels", 2431 + changed)
        flip(path, place)
        if first // SEGMENT <= changed // SEGMENT <= (stop - 1) // SEGMENT:
            with pytest.raises(InputError, match="person 'f s1' from voxel"):
                matrix.columns(first, stop, np.array([4, 1]))
        else:
            matrix.columns(first, stop, np.array([4, 1]))
        matrix.columns(first, stop, np.array([4, 0]))
        flip(path, place)


# -- what a run makes of its own --------------------------------------------------------------------------------------


def test_damaged_histograms_are_refused(tmp_path: Path) -> None:
    bins = Bins(Statistic.of(50, 2, "t"))
    file = Histograms(tmp_path / "o.h5")
    file.add(["a", "b", "c"], np.ones((3, bins.count), np.int64), bins)
    file.finish()
    ((_, counts),) = file.groups()
    assert (counts == 1).all()
    with h5py.File(file.path, "r+") as stored:
        stored[f"df_{bins.statistic.df}/counts"][1, 7] = 3
    for read in (file.groups, lambda: list(file.rows_of_traits())):
        with pytest.raises(InputError, match=r"o\.h5 is damaged: the histogram of trait 'b' is not what was written"):
            read()


def test_damaged_maxima_are_refused(tmp_path: Path) -> None:
    path, maxima = tmp_path / "o.maxima.h5", {"log10p": np.arange(5.0), "volume": np.ones(5)}
    save_maxima(path, maxima, MARK)
    assert load_maxima(path, MARK)["volume"].tolist() == [1] * 5
    flip(path, place_of(path, "log10p", 3))
    with pytest.raises(InputError, match=r"o\.maxima\.h5 is damaged: it is not what was written"):
        load_maxima(path, MARK)


def test_damaged_pairs_and_records_are_refused(tmp_path: Path) -> None:
    m, k = 9000, 20000
    records = np.zeros(m, RECORD_DTYPE)
    records["t"] = np.arange(m)
    pairs = {"snp": np.arange(k) // 3, "voxel": np.arange(k) % 5, "t": np.arange(k) / 7}
    pairs |= {"beta": -pairs["t"], "log10p": pairs["t"] ** 2}
    path, where = tmp_path / "o.voxels.h5", np.argwhere(small_mask())

    def make() -> None:
        blocks = ({name: values[start : start + 777] for name, values in pairs.items()} for start in range(0, k, 777))
        assert save_entries(path, np.arange(m), records, blocks, MARK, {"shape": np.array(SHAPE)}, where) == k

    make()
    file = open_entries(path, MARK)
    np.testing.assert_array_equal(file.records(8000, 8500)["t"], np.arange(8000, 8500))
    assert file.records(4, 4).size == 0 and file.pairs(7000)["snp"].size == 0
    np.testing.assert_array_equal(file.pairs(2731)["t"], pairs["t"][8193:8196])
    with h5py.File(path, "r+") as stored:
        stored["records"][8400] = np.zeros(1, RECORD_DTYPE)
        stored["beta"][2] = 1
    with pytest.raises(InputError, match=r"o\.voxels\.h5 is damaged: rows 8,193 to 9,000 of /records are not"):
        file.records(8100, 8200)
    file.records(0, 8192)
    with pytest.raises(InputError, match=r"damaged: rows 1 to 8,192 of /beta are not"):
        file.pairs(2000)
    file.pairs(3000)
    make()
    with h5py.File(path, "r+") as stored:
        stored["index"][5] = 6
    with pytest.raises(InputError, match=r"o\.voxels\.h5 is damaged"):
        open_entries(path, MARK)


def test_a_damaged_block_of_rotated_snps_is_refused(tmp_path: Path) -> None:
    """One that was damaged before the next pass is not believed; those before it are as they were."""
    scratch = ScratchFile(tmp_path / "o.scratch.0", (5, 3), np.float32)
    blocks = np.random.default_rng(2).standard_normal((4, 5, 3), dtype=np.float32)
    for block in blocks:
        scratch.write(block)
    scratch.finish_writing()
    np.testing.assert_array_equal([block.copy() for block in scratch.read()], blocks)
    flip(scratch.path, 2 * scratch.block_bytes + 17)
    found = []
    with pytest.raises(StorageError, match=r"o\.scratch\.0 is damaged: its block 2 is not what was written"):
        found.extend(block.copy() for block in scratch.read())
    np.testing.assert_array_equal(found, blocks[:2])
    scratch.remove()
