"""Choosing SNPs by the .bim and by their counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.model.gls import Note
from mpgls.study import variants
from mpgls.study.count_filters import Dropped, dropped_by, passes
from mpgls.study.filters import SnpFilter, parse_chromosomes, select_snps
from mpgls.study.plink import VariantTable
from mpgls.study.snp_stats import SnpStats

#       0         1         2           3           4           5           6
ROWS = ["1 a 0 5", "1 b 0 -5", "2 c 0 7", "chr2 d 0 -1", "X e 0 9", "12 f 0 3", "1 a 0 6"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VariantTable:
    # several batches, and several blocks of offsets
    monkeypatch.setattr(variants, "STRIDE", 3)
    monkeypatch.setattr(VariantTable.batches, "__defaults__", (2,))
    path = tmp_path / "a.bim"
    path.write_text("".join(f"{row} A C\n" for row in ROWS))
    return VariantTable.open(path)


def id_list(tmp_path: Path, text: str) -> str:
    path = tmp_path / "ids.txt"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1-4,X,22", ("1", "2", "3", "4", "X", "22")),
        ("chr7", ("7",)),
        ("chr1-chr3, x", ("1", "2", "3", "X")),
        ("2,1-3", ("2", "1", "3")),
        ("NC_1-2", ("NC_1-2",)),
    ],
)
def test_parse_chromosomes(text: str, names: tuple[str, ...]) -> None:
    assert parse_chromosomes(text) == names


@pytest.mark.parametrize(("text", "message"), [("1,,2", "empty item"), ("", "empty item"), ("4-2", "backwards")])
def test_parse_chromosomes_errors(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_chromosomes(text)


def test_no_filter_keeps_all_and_counts_negative_positions(table: VariantTable) -> None:
    selection = select_snps(table, SnpFilter())
    assert selection.index.tolist() == list(range(7))
    assert selection.index.dtype == np.int64
    assert (selection.total, selection.negative_bp, selection.reasons) == (7, 2, {})


def test_chromosomes_match_with_and_without_chr(table: VariantTable) -> None:
    selection = select_snps(table, SnpFilter(chromosomes=("chr2", "x")))
    assert selection.index.tolist() == [2, 3, 4]
    assert selection.reasons == {"--chr": 4}


@pytest.mark.parametrize(
    ("labels", "asked", "kept"),
    [
        (["22", "X", "x", "Y", "MT"], "23", [1, 2]),
        (["22", "23", "024", "26"], "X,chrM", [1, 3]),
        (["01", "chr1", "Chr01", "1A", "10"], "1", [0, 1, 2]),
        (["1", "25", "PAR1", "par2", "XY"], "PAR", [1, 2, 3, 4]),
        # cattle: 23 is an autosome beside X
        (["22", "23", "X", "24", "MT", "1"], "X", [2]),
        (["22", "23", "X", "24", "MT", "1"], "23", [1]),
        (["22", "23", "X", "24", "MT", "1"], "20-26", [0, 1, 3, 4]),
    ],
)
def test_chromosomes_are_known_by_all_their_names(tmp_path: Path, labels, asked, kept) -> None:
    path = tmp_path / "b.bim"
    path.write_text("".join(f"{label} s{k} 0 {k + 1} A C\n" for k, label in enumerate(labels)))
    selection = select_snps(VariantTable.open(path), SnpFilter(parse_chromosomes(asked)))
    assert selection.index.tolist() == kept
    assert selection.reasons == {"--chr": len(labels) - len(kept)}


@pytest.mark.parametrize(
    ("labels", "dropped", "autosomes"),
    [
        (["22", "chrX", "Y", "MT", "XY", "0", "GL0001.1", "chr2L", "27"], [], [0, 7, 8]),
        (["22", "23", "24", "25", "26", "chr1"], ["X"], [0, 5]),
        # cattle: 23 to 29 are autosomes beside X
        (["22", "23", "26", "29", "X", "MT"], ["X"], [0, 1, 2, 3]),
        (["22", "23", "26", "29", "X", "MT"], ["23"], [0, 1, 2, 3]),
    ],
)
def test_autosomes_and_chromosomes_left_out(tmp_path: Path, monkeypatch, labels, dropped, autosomes) -> None:
    monkeypatch.setattr(VariantTable.batches, "__defaults__", (2,))
    path = tmp_path / "b.bim"
    path.write_text("".join(f"{label} s{k} 0 {k + 1} A C\n" for k, label in enumerate(labels)))
    table = VariantTable.open(path)
    selection = select_snps(table, SnpFilter(autosomes=True))
    assert selection.index.tolist() == autosomes
    assert selection.reasons == {"--autosome": len(labels) - len(autosomes)}
    names = {label.removeprefix("chr"): k for k, label in enumerate(labels)}
    gone = {names.get(name, names.get("23")) for name in dropped}
    selection = select_snps(table, SnpFilter(not_chromosomes=tuple(dropped)))
    assert selection.index.tolist() == [k for k in range(len(labels)) if k not in gone]
    assert selection.reasons == ({"--not-chr": len(gone)} if gone else {})


def test_positions_and_ranges(table: VariantTable, tmp_path: Path) -> None:
    selection = select_snps(table, SnpFilter(("1",), from_bp=-5, to_bp=5))
    assert selection.index.tolist() == [0, 1]
    assert selection.reasons == {"--chr": 4, "--from-bp": 0, "--to-bp": 1}
    ranges = tmp_path / "ranges.txt"
    ranges.write_text("#CHROM from to label\nchr1 6 10 a\n23 8 9 b\n1 -9 -5 c\n1 7 8 d\n02 9 9 e\n")
    selection = select_snps(table, SnpFilter(range=str(ranges), not_chromosomes=("12",)))
    assert selection.index.tolist() == [1, 4, 6]
    assert selection.reasons == {"--not-chr": 1, "--range": 3}
    assert selection.lists == (f"{ranges}: 4 ranges on 3 chromosomes",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n", "line 1: expected a chromosome and two positions, found '1 2'"),
        ("1 5 9\n1 9 5\n", "line 2: the range from 9 to 5 runs backwards"),
        ("CHR FROM TO\n1 5 9\n", "line 1: expected a chromosome and two positions, found 'CHR FROM TO'"),
        ("1 5 9.5\n", "line 1: expected a chromosome and two positions, found '1 5 9.5'"),
        ("#CHR FROM TO\n", "lists no range"),
    ],
)
def test_malformed_ranges(table: VariantTable, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ranges.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        select_snps(table, SnpFilter(range=str(path)))


def test_commas_part_names_that_are_none_with_them(tmp_path: Path) -> None:
    path = tmp_path / "b.bim"
    path.write_text("".join(f"1 {name} 0 {k + 1} A C\n" for k, name in enumerate(["a", "b", "a,b", "c", "d"])))
    table = VariantTable.open(path)
    assert select_snps(table, SnpFilter(extract=id_list(tmp_path, "a,b"))).index.tolist() == [2]
    assert select_snps(table, SnpFilter(extract=id_list(tmp_path, "a,c\nd, q,\n"))).index.tolist() == [0, 3, 4]
    assert select_snps(table, SnpFilter(exclude=id_list(tmp_path, "\ufeffa,c,d\r\n\r\n"))).index.tolist() == [1, 2]


def test_extract_and_exclude(table: VariantTable, tmp_path: Path) -> None:
    ids = id_list(tmp_path, "a\nc\n\nnever\n")
    assert select_snps(table, SnpFilter(extract=ids)).index.tolist() == [0, 2, 6]
    assert select_snps(table, SnpFilter(exclude=ids)).index.tolist() == [1, 3, 4, 5]


def test_a_snp_counts_under_the_first_flag_that_drops_it(table: VariantTable, tmp_path: Path) -> None:
    snp_filter = SnpFilter(("1", "2"), exclude=id_list(tmp_path, "b e"), exclude_negative_bp=True)
    selection = select_snps(table, snp_filter)
    assert selection.index.tolist() == [0, 2, 6]
    assert selection.reasons == {"--chr": 2, "--exclude": 1, "--exclude-negative-bp": 1}
    assert selection.negative_bp == 2


def test_lists_that_leave_nothing(table: VariantTable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no SNP in common: the list has q, r, s, \.\.\., the genotypes a, b, c"):
        select_snps(table, SnpFilter(extract=id_list(tmp_path, "q\nr\ns\nt\n")))
    with pytest.raises(InputError, match=r"no SNP of .*a.bim is left: of 7, --chr drops 7 .*1, 2, chr2, \.\.\."):
        select_snps(table, SnpFilter(chromosomes=("9",)))
    with pytest.raises(StorageError, match="nowhere"):
        select_snps(table, SnpFilter(extract=str(tmp_path / "nowhere")))


def test_thresholds_of_the_command_line_are_checked() -> None:
    with pytest.raises(UsageError, match="--maf"):
        SnpFilter(maf=0.6)
    with pytest.raises(UsageError, match="--geno"):
        SnpFilter(geno=float("nan"))
    with pytest.raises(UsageError, match=r"--maf 0.2 is above --max-maf 0.1"):
        SnpFilter(maf=0.2, max_maf=0.1)
    for chromosomes in ((), ("1", "2")):
        with pytest.raises(
            UsageError, match="--from-bp and --to-bp are positions on one chromosome: name it with --chr"
        ):
            SnpFilter(chromosomes, from_bp=3)
    with pytest.raises(UsageError, match="--from-bp 9 is beyond --to-bp 8"):
        SnpFilter(("1",), from_bp=9, to_bp=8)
    with pytest.raises(UsageError, match="--not-chr '3-2': the range 3-2 runs backwards"):
        parse_chromosomes("3-2", "--not-chr")


def test_maf_and_geno_keep_the_threshold_itself() -> None:
    #           maf 0.1 by A1, by A2, below, above; then all missing
    stats = SnpStats(
        n_obs=np.array([10, 10, 10, 9, 0], dtype=np.int32),
        a1_sum=np.array([2.0, 18.0, 1.0, 9.0, 0.0]),
        sum_sq=np.array([2.0, 34.0, 1.0, 9.0, 0.0]),
        n=10,
    )
    assert passes(stats, SnpFilter()).tolist() == [True] * 5
    assert passes(stats, SnpFilter(maf=0.1)).tolist() == [True, True, False, True, False]
    assert passes(stats, SnpFilter(geno=0.1)).tolist() == [True, True, True, True, False]
    assert passes(stats, SnpFilter(geno=0.09)).tolist() == [True, True, True, False, False]
    assert passes(stats, SnpFilter(max_maf=0.1)).tolist() == [True, True, True, False, True]
    assert passes(stats, SnpFilter(mac=2)).tolist() == [True, True, False, True, False]


def test_a_snp_counts_under_the_first_option_that_drops_it() -> None:
    one, two = np.array([0, 30, 0, 1, 0]), np.array([0, 0, 15, 0, 9])
    n_obs = np.array([0, 30, 30, 30, 30], dtype=np.int32)
    stats = SnpStats(n_obs, a1_sum=one + 2.0 * two, sum_sq=one + 4.0 * two, n=30)
    for counts, expected in zip(stats.genotypes, (two, one, n_obs - one - two), strict=True):
        np.testing.assert_array_equal(counts, expected)
    notes = dropped_by(stats, SnpFilter(geno=0.5, mac=2, max_maf=0.49, hwe=1e-6))
    assert notes.tolist() == [Note.MAC, Note.MAX_MAF, Note.MAX_MAF, Note.MAC, Note.HWE]
    dropped = Dropped()
    dropped.add(notes)
    dropped.add(np.array([Note.OK, Note.MONOMORPHIC, Note.HWE]))
    assert dropped.text == "2 dropped by --mac, 2 dropped by --max-maf, 2 dropped by --hwe"
