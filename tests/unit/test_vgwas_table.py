from __future__ import annotations

import numpy as np
import pytest
from thread_ranks import one_rank

from mpgls.errors import StorageError
from mpgls.model.clusters import RECORD_DTYPE
from mpgls.model.extremes import Correction, Tail
from mpgls.model.gls import Note
from mpgls.report import null_plots
from mpgls.report.null_plots import bin_edges, critical_value, null_plot
from mpgls.report.table_files import write_rows
from mpgls.report.vgwas_table import COLUMNS, SnpRows, format_rows, vgwas_table
from mpgls.study.plink import Variants

PNG = b"\x89PNG\r\n\x1a\n"
COORDINATES = np.array([[3, 4, 5], [3, 4, 6], [10, 0, 2]])
ALL = {
    "log10p": Correction(np.array([4.0, 5.0, 0.0])),
    "volume": Correction(np.array([3.0, 9.0, 0.0])),
    "sum_log10p": Correction(np.array([12.0, 40.0, 0.0])),
    "cluster_volume": Correction(np.array([2.0, 4.0, 0.0])),
    "cluster_mass": Correction(np.array([8.0, 20.0, 0.0])),
    "tfce": Correction(np.array([1.5, 3.0, 0.0])),
}


class Bim:
    """The rows of a .bim in memory."""

    def read(self, start: int, stop: int) -> Variants:
        rows = range(start, stop)
        pos = np.array([100 + k for k in rows], dtype=np.int64)
        return Variants(
            [str(1 + k % 2) for k in rows], [f"rs{k}" for k in rows], pos, ["A"] * len(pos), ["C"] * len(pos)
        )


def make_records() -> np.ndarray:
    """A strong SNP, one without a voxel beyond the threshold, one that does not vary, one filtered, a weak one."""
    records = np.zeros(5, RECORD_DTYPE)
    records[0] = (-6.5, 9.25, 7, 44.125, 4, 25.5, 2.75, 0.1 + 0.2, 2, 740, Note.OK)
    records[1] = (np.nan, 0.0, 0, 0.0, 0, 0.0, 0.0, 0.25, -1, 739, Note.OK)
    records[2] = (np.nan, np.nan, 0, np.nan, 0, np.nan, np.nan, 0.0, -1, 740, Note.MONOMORPHIC)
    records[3] = (np.nan, np.nan, 0, np.nan, 0, np.nan, np.nan, np.nan, -1, 0, Note.MAF)
    records[4] = (4.25, 4.5, 1, 4.5, 1, 4.5, 0.0, 0.5, 0, 740, Note.OK)
    return records


def rows_of(text: bytes) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in text.decode().splitlines()]


def test_every_column():
    expected = (
        "CHR POS ID EA NEA EAF N PEAK_VOXEL T LOG10P VOLUME SUM_LOG10P CLUSTER_VOLUME CLUSTER_MASS TFCE FWE_P_LOG10P "
        "FWE_P_VOLUME FWE_P_SUM_LOG10P FWE_P_CLUSTER_VOLUME FWE_P_CLUSTER_MASS FWE_P_TFCE NOTE"
    )
    assert list(COLUMNS) == expected.split()
    lines = format_rows(Bim().read(0, 5), make_records(), ALL, COORDINATES).decode().splitlines()
    assert lines[0].split("\t") == [
        "1", "100", "rs0", "A", "C", "0.3", "740", "10,0,2", "-6.5", "9.25", "7", "44.125", "4", "25.5", "2.75",
        "0.25", "0.5", "0.25", "0.5", "0.25", "0.5", ".",
    ]  # fmt: skip
    assert lines[1].split("\t")[6:] == ["739", *["NA"] * 3, *["0"] * 5, *["1"] * 6, "."]
    assert lines[2].split("\t")[5:] == ["0", "740", *["NA"] * 14, "monomorphic"]
    assert lines[3].split("\t")[2:] == [
        "rs4", "A", "C", "0.5", "740", "3,4,5", "4.25", "4.5", "1", "4.5", "1", "4.5", "0",
        "0.5", "0.75", "0.75", "0.75", "0.75", "1", ".",
    ]  # fmt: skip
    assert len(lines) == 4


def test_what_was_not_taken_is_na():
    few = {name: ALL[name] for name in ("log10p", "volume", "sum_log10p")}
    row = rows_of(format_rows(Bim().read(0, 5), make_records(), few))[0]
    assert row["PEAK_VOXEL"] == "2"
    assert {name for name, text in row.items() if text == "NA"} == {
        "CLUSTER_VOLUME", "CLUSTER_MASS", "TFCE", "FWE_P_CLUSTER_VOLUME", "FWE_P_CLUSTER_MASS", "FWE_P_TFCE",
    }  # fmt: skip


def test_without_permutations_there_is_no_corrected_p():
    row = rows_of(format_rows(Bim().read(0, 5), make_records(), {"log10p": Correction(np.empty(0))}))[0]
    assert row["LOG10P"] == "9.25" and row["FWE_P_LOG10P"] == "NA"


def test_p_values_of_the_tail_are_flagged():
    maxima = np.random.default_rng(0).exponential(size=1000)
    tail = Tail(1.4, 0.0, 1.0, 0.25, 0.3, 0.8, 250)
    corrections = ALL | {"log10p": Correction(maxima, tail), "tfce": Correction(maxima / 9, tail)}
    rows = rows_of(format_rows(Bim().read(0, 5), make_records(), corrections))
    assert [row["NOTE"] for row in rows] == ["gpd:LOG10P,TFCE", ".", "monomorphic", "."]
    assert float(rows[0]["FWE_P_LOG10P"]) == pytest.approx(0.25 * np.exp(-(9.25 - 1.4)), rel=1e-9)
    assert float(rows[0]["FWE_P_LOG10P"]) < 1 / 1001


def test_the_file_is_the_rows_in_any_batch(tmp_path):
    index = np.array([2, 3, 90_000, 90_001, 200_000])
    records = np.tile(make_records(), 1)
    snps = SnpRows(Bim(), lambda a, b: records[a:b], 5, index)
    table = vgwas_table(snps, ALL)
    for batch in (1, 2, 65536):
        assert write_rows(one_rank(), {"tsv": tmp_path / f"{batch}.tsv"}, table, batch) == []
    texts = [(tmp_path / f"{batch}.tsv").read_bytes() for batch in (1, 2, 65536)]
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].startswith("\t".join(COLUMNS).encode() + b"\n")
    assert [row["ID"] for row in rows_of(texts[0])[1:]] == ["rs2", "rs3", "rs90000", "rs200000"]
    assert len(list(tmp_path.iterdir())) == 3


def test_unwritable_place_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        snps = SnpRows(Bim(), lambda a, b: make_records()[a:b], 5)
        write_rows(one_rank(), {"tsv": tmp_path / "absent" / "o.tsv"}, vgwas_table(snps, ALL))
    with pytest.raises(StorageError, match="cannot write the plot"):
        null_plot(tmp_path / "absent" / "o.png", "tfce", np.arange(9.0), [1.0], ["rs1"])


PLOTS = {
    "continuous": (np.random.default_rng(1).gumbel(6, 0.4, 1000), [6.1, 9.5, 7.0, 7.01, 7.02, 6.9, 2.0]),
    "counts": (np.random.default_rng(2).poisson(9, 200).astype(float), [40.0, 11.0]),
    "all the same": (np.zeros(50), [0.0]),
    "few permutations": (np.array([3.0]), [2.5, np.nan]),
    "no permutation": (np.empty(0), [1.0]),
    "infinite": (np.array([3.0, 4.0]), [np.inf]),
}


@pytest.mark.parametrize("case", PLOTS)
@pytest.mark.filterwarnings("error")
def test_null_plots_are_complete_png_files(tmp_path, case):
    maxima, top = PLOTS[case]
    tail = Tail(6.2, 0.05, 0.4, 0.25, 0.3, 0.8, 250) if case == "continuous" else None
    null_plot(tmp_path / "p.png", "tfce", maxima, top, [f"rs${k}_1" for k in range(len(top))], tail)
    data = (tmp_path / "p.png").read_bytes()
    assert data.startswith(PNG) and data.rstrip().endswith(b"IEND\xaeB`\x82")


def test_every_statistic_has_its_title():
    assert set(null_plots.TITLES) == set(ALL)


def test_bins_hold_every_maximum_and_whole_counts_are_centred():
    for maxima, _ in PLOTS.values():
        if maxima.size:
            edges = bin_edges(maxima)
            assert np.histogram(maxima, edges)[0].sum() == maxima.size
    edges = bin_edges(PLOTS["counts"][0])
    assert np.all(edges % 1 == 0.5) and np.all(np.diff(edges) == np.diff(edges)[0])


@pytest.mark.parametrize("permutations", [19, 20, 38, 39, 99, 999, 1000])
def test_beyond_the_critical_value_corrected_p_is_at_most_5_percent(permutations):
    maxima = np.random.default_rng(permutations).uniform(size=permutations)
    line = critical_value(maxima)
    correction = Correction(maxima)
    assert correction.p(np.array([np.nextafter(line, 2)]))[0] <= 0.05 + 1e-12
    assert correction.p(np.array([line]))[0] > 0.05
    assert critical_value(maxima[:18]) == np.inf
