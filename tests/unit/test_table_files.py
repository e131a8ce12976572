"""Tables in every format: bytes by zlib and struct, as the formats' descriptions have them."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from thread_ranks import ThreadRank, on_ranks, one_rank

from mpgls.errors import InputError, StorageError
from mpgls.report.read_table import read_columns
from mpgls.report.table_files import write_rows
from mpgls.report.table_lines import SsfFacts, Table
from mpgls.stream import bgzf

COLUMNS = ("CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "BETA", "SE", "STAT", "LOG10P", "P", "NOTE")
EOF = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0\x1b\0\x03\0\0\0\0\0\0\0\0\0"
LENGTHS = {"1": 200_000_000, "2": 70_000, "X": 40_000_000}


def lines_of(places: list[tuple[str, int]], wide: int = 1) -> list[str]:
    rng = np.random.default_rng(len(places))
    end = "0.5\t1.0\t0.5\t3.1e-01\t.\n"
    return [
        f"{chrom}\t{pos}\trs{k}\tA\t{'C' * (1 + k % wide)}\t0.25\t{90 + k % 3}\t{rng.normal()!r}\t{end}"
        for k, (chrom, pos) in enumerate(places)
    ]


def table_of(lines: list[str], facts: SsfFacts | None = None) -> Table:
    return Table(COLUMNS, lambda a, b: "".join(lines[a:b]).encode(), len(lines), facts)


def sorted_places(count: int) -> list[tuple[str, int]]:
    rng = np.random.default_rng(1)
    return [(c, pos) for c, size in LENGTHS.items() for pos in np.sort(rng.integers(1, size, count // 3)).tolist()]


def blocks_of(data: bytes) -> dict[int, bytes]:
    """The text of each block, by the byte at which it begins; every member says its own size."""
    found, at = {}, 0
    while at < len(data):
        size = 1 + struct.unpack_from("<H", data, at + 16)[0]
        found[at] = zlib.decompress(data[at : at + size], 31)
        assert len(found[at]) < 1 << 16
        at += size
    return found


class Reader:
    """A .tbi as the tabix paper and the SAM specification describe it, and the table beside it."""

    def __init__(self, path: Path) -> None:
        self.blocks, self.at = blocks_of(path.read_bytes()), 0
        self.data = gzip.decompress(Path(f"{path}.tbi").read_bytes())
        assert self.data[:4] == b"TBI\1"
        self.at = 4
        n_ref, self.format, col, beg, end, self.meta, self.skip, names = self.take("8i")
        self.columns = (col, beg, end)
        self.names = self.data[self.at : self.at + names].decode().split("\0")[:-1]
        self.at += names
        assert len(self.names) == n_ref
        self.bins, self.linear = {}, {}
        for name in self.names:
            self.bins[name] = {}
            for _ in range(*self.take("i")):
                number, chunks = self.take("Ii")
                self.bins[name][number] = [self.take("QQ") for _ in range(chunks)]
            self.linear[name] = self.take(f"{self.take('i')[0]}Q")

    def take(self, form: str) -> tuple:
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def text(self, begin: int, end: int) -> str:
        """What lies between two virtual offsets."""
        starts = sorted(self.blocks)
        whole = b"".join(self.blocks[at] for at in starts)
        before = dict(zip(starts, np.cumsum([0, *(len(self.blocks[at]) for at in starts[:-1])]).tolist(), strict=True))
        place = {at: before.get(at, len(whole)) for at in (begin >> 16, end >> 16)}
        return whole[place[begin >> 16] + (begin & 65535) : place[end >> 16] + (end & 65535)].decode()

    def fetch(self, chrom: str, first: int, last: int) -> list[str]:
        """The lines with positions first to last, by bins of 2^14 and by the linear index."""
        windows = range((first - 1) >> 14, ((last - 1) >> 14) + 1)
        chunks = [chunk for w in windows for chunk in self.bins[chrom].get(4681 + w, ())]
        least = self.linear[chrom][windows[0]] if windows[0] < len(self.linear[chrom]) else 1 << 63
        texts = [self.text(begin, end) for begin, end in chunks if end > least]
        lines = [line + "\n" for text in texts for line in text.split("\n")[:-1]]
        return [line for line in lines if first <= int(line.split("\t")[1]) <= last]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("batch", [101, 65536])
def test_packed_table_is_the_text_in_blocks_with_an_index(tmp_path, size, batch):
    lines = lines_of(sorted_places(2400), wide=97)
    paths = {"tsv": tmp_path / "t.tsv", "tsv.gz": tmp_path / "t.tsv.gz"}

    def body(comm: ThreadRank) -> list[str]:
        return write_rows(comm, paths, table_of(lines), batch)

    assert on_ranks(size, body) == [[]] * size
    text, data = paths["tsv"].read_bytes(), paths["tsv.gz"].read_bytes()
    assert text.decode() == "\t".join(COLUMNS) + "\n" + "".join(lines)
    assert gzip.decompress(data) == text
    blocks = blocks_of(data)
    assert data.endswith(EOF) and list(blocks.values()).count(b"") == 1
    reader = Reader(paths["tsv.gz"])
    assert (reader.format, reader.columns, reader.meta, reader.skip) == (0, (1, 2, 2), ord("#"), 1)
    assert reader.names == list(LENGTHS)
    rng = np.random.default_rng(size)
    for chrom, length in LENGTHS.items():
        own = [line for line in lines if line.startswith(f"{chrom}\t")]
        for first in [1, *rng.integers(1, length, 6).tolist()]:
            last = int(first + rng.integers(0, length // 3))
            expected = [line for line in own if first <= int(line.split("\t")[1]) <= last]
            assert reader.fetch(chrom, first, last) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.tsv", "t.tsv.gz", "t.tsv.gz.tbi"]


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ([("1", 5), ("1", 4)], "positions of chromosome 1 do not ascend"),
        ([("1", 5), ("2", 4), ("1", 6)], "chromosome 1 begins twice"),
        ([("1", 0), ("1", 4)], r"positions are not all from 1 to 536,870,912"),
        ([("1", 4), ("1", 2**29 + 1)], r"positions are not all from 1 to 536,870,912"),
    ],
)
def test_what_is_not_sorted_has_no_index(tmp_path, places, reason):
    path = tmp_path / "t.tsv.gz"
    for size in (1, 2):
        notes = on_ranks(size, lambda comm: write_rows(comm, {"tsv.gz": path}, table_of(lines_of(places)), 1))
        assert notes == [[f"{path} has no index: {reason}"]] * size
    assert [p.name for p in tmp_path.iterdir()] == ["t.tsv.gz"]


def test_positions_at_the_ends_are_found(tmp_path):
    lines = lines_of([("1", 1), ("1", 2**14), ("1", 2**14 + 1), ("1", 2**29)])
    write_rows(one_rank(), {"tsv.gz": tmp_path / "t.tsv.gz"}, table_of(lines))
    reader = Reader(tmp_path / "t.tsv.gz")
    assert [reader.fetch("1", at, at) for at in (1, 2**14, 2**14 + 1, 2**29)] == [[line] for line in lines]


@pytest.mark.parametrize("count", [0, 1, bgzf.BLOCK, bgzf.BLOCK + 1, 3 * bgzf.BLOCK])
def test_blocks_hold_what_cannot_be_packed(count):
    text = np.random.default_rng(count).bytes(count)
    data, starts = bgzf.pack(text)
    assert b"".join(blocks_of(data).values()) == text
    assert list(blocks_of(data)) == starts[:-1].tolist() and starts[-1] == len(data)
    assert bgzf.EOF == EOF


ROWS = [
    "1\t100\trs1\tA\tC\t0.25\t99\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "1\t101\tchip7\tAT\tG\t0.5\t98\t-0.5\t0.25\t-2.0\t310.5\t3.1622776602e-311\t.\n",
    "1\t102\trs2\tA\tC\t0.0\t99\tNA\tNA\tNA\tNA\tNA\tmonomorphic\n",
    "1\t103\trs3\tA\t<DEL>\t0.25\t99\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "1\t104\trs4\tA\tC\t0.25\t99\t0.5\t0.0\tinf\tinf\t0.0000000000e+00\t.\n",
    f"2\t7\trs5\ta\t{'T' * 1001}\t0.25\t97\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "chrX\t9\trs6\tA\tC\t0.25\t99\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "25\t9\trs7\tA\tC\t0.25\t99\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "Y\t9\trs8\tA\tC\t0.25\t99\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "MT\t9\trs9\tA\tC\t0.25\t101\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
    "0\t0\trs10\tA\tC\t0.25\t99\t0.5\t0.25\t2.0\t1.3\t5.0000000000e-02\t.\n",
]
MANDATORY = [
    *("chromosome", "base_pair_location", "effect_allele", "other_allele", "beta", "standard_error"),
    "effect_allele_frequency",
]


@pytest.mark.parametrize(("order", "is_sorted"), [("1 2 X", True), ("2 10", True), ("10 2", False), ("X 1", False)])
def test_ssf_is_sorted_where_chromosomes_ascend_too(tmp_path, order, is_sorted):
    lines = lines_of([(chrom, pos) for chrom in order.split() for pos in (5, 9)])
    paths = {form: tmp_path / f"t.{form}" for form in ("ssf", "tsv.gz")}
    on_ranks(2, lambda comm: write_rows(comm, paths, table_of(lines, SsfFacts("y")), 1))
    assert f"is_sorted: {str(is_sorted).lower()}\n" in Path(f"{paths['ssf']}-meta.yaml").read_text()
    assert Path(f"{paths['tsv.gz']}.tbi").exists()


@pytest.mark.parametrize("letter", ["\u2028", "\x85", "\x1e"])
def test_a_name_may_have_what_other_programs_end_lines_with(tmp_path, letter):
    pytest.importorskip("pyarrow")
    lines = [line.replace("rs1\t", f"rs{letter}1\t") for line in lines_of([("1", 5), ("1", 9), ("1", 12)])]
    paths = {form: tmp_path / f"t.{form}" for form in ("tsv", "tsv.gz", "parquet", "ssf")}
    assert write_rows(one_rank(), paths, table_of(lines, SsfFacts("y"))) == []
    assert Reader(paths["tsv.gz"]).fetch("1", 6, 12) == lines[1:]
    assert len(paths["ssf"].read_bytes().split(b"\n")) == 5
    for form in ("tsv", "tsv.gz", "parquet"):
        assert read_columns(paths[form])["ID"].tolist() == ["rs0", f"rs{letter}1", "rs2"]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("largest", [310.5, 20.0])
def test_ssf_has_the_columns_of_the_format_and_what_it_can_hold(tmp_path, size, largest):
    path = tmp_path / "t.ssf.tsv"
    facts = SsfFacts('height: "at" 20', 38, 0.01, ("age", "site=b"), largest)
    (notes, *_) = on_ranks(size, lambda comm: write_rows(comm, {"ssf": path}, table_of(ROWS, facts), 2))
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    p = "neg_log_10_p_value" if largest > 300 else "p_value"
    assert header == [*MANDATORY, p, "rsid", "n"]
    assert [row[0] for row in rows] == ["1", "1", "2", "23", "23", "24", "25"]
    first_p = {"p_value": "5.0000000000e-02", "neg_log_10_p_value": "1.3"}[p]
    assert rows[0] == ["1", "100", "A", "C", "0.5", "0.25", "0.25", first_p, "rs1", "99"]
    assert rows[1][8] == "#NA" and rows[1][2:4] == ["AT", "G"] and rows[2][2:4] == ["a", "LONG_STRING"]
    assert len(notes) == 1 and all(
        part in notes[0]
        for part in ("1 without an estimate", "1 with a standard error of 0", "1 not on chromosomes", "1 with alleles")
    )
    yaml = pytest.importorskip("yaml")
    meta = yaml.safe_load(Path(f"{path}-meta.yaml").read_text())
    assert meta["data_file_md5sum"] == hashlib.md5(path.read_bytes()).hexdigest()
    assert meta["trait_description"] == ['height: "at" 20'] and meta["genome_assembly"] == "GRCh38"
    assert meta["samples"] == [{"sample_size": 101}] and meta["adjusted_covariates"] == ["age", "site=b"]
    assert meta["is_sorted"] is True and meta["file_type"] == "GWAS-SSF v1.0" and meta["data_file_name"] == path.name


def test_ssf_says_which_columns_it_has_no_place_for(tmp_path):
    path = tmp_path / "t.ssf.tsv"
    columns = [*COLUMNS[:-1], "BETA_SNPxage", "P_JOINT", COLUMNS[-1]]
    lines = [line.replace("\t.\n", "\t0.1\t0.5\t.\n") for line in ROWS[:2]]
    table = Table(columns, lambda a, b: "".join(lines[a:b]).encode(), len(lines), SsfFacts("y"))
    (note,) = write_rows(one_rank(), {"ssf": path}, table)
    assert f"{path} has not the columns BETA_SNPxage, P_JOINT" in note
    assert len(path.read_text().splitlines()) == 3


def test_ssf_says_whether_it_is_sorted(tmp_path):
    path = tmp_path / "t.ssf.tsv"
    write_rows(one_rank(), {"ssf": path}, table_of([ROWS[1], ROWS[0]], SsfFacts("y")))
    facts = Path(f"{path}-meta.yaml").read_text()
    assert "is_sorted: false\n" in facts and 'genome_assembly: "NR"\n' in facts and "adjusted" not in facts


@pytest.mark.parametrize("form", ["tsv", "tsv.gz", "ssf", "parquet"])
def test_a_failing_rank_leaves_no_file_of_any_format(tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    lines = lines_of(sorted_places(60))

    def text(start: int, stop: int) -> bytes:
        if start <= 23 < stop:
            raise InputError("row 23 is malformed")
        return "".join(lines[start:stop]).encode()

    paths = {"tsv": tmp_path / "o.tsv", form: tmp_path / f"o.{form}"}
    size = 1 if form == "parquet" else 3  # what sends rows to another rank is tested with MPI
    results = on_ranks(size, lambda comm: write_rows(comm, paths, Table(COLUMNS, text, 60, SsfFacts("y")), 4))
    assert [str(error) for error in results] == ["row 23 is malformed"] * size
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["tsv", "tsv.gz", "ssf", "parquet"])
def test_an_unwritable_place_is_a_storage_error(tmp_path, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "absent" / "o"
    for error in on_ranks(2, lambda comm: write_rows(comm, {form: path}, table_of(ROWS, SsfFacts("y")))):
        assert isinstance(error, StorageError) and str(path) in str(error)
