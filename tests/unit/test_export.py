from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import mpgls
from mpgls.commands.export import exportable
from mpgls.errors import InputError, StorageError, UsageError
from mpgls.model.null_record import given, unknown
from mpgls.report.table import COLUMNS, format_rows
from mpgls.run.identity import file_identity
from mpgls.stream.dense_store import DenseShape, create_dense, open_dense, save_nulls
from mpgls.stream.mark import Mark
from mpgls.stream.store import RECORD_DTYPE, ResultStore, StoreShape, block_edges, create_store, open_store, save_null
from mpgls.stream.writer import UnitWriter
from mpgls.study.plink import VariantTable

INDEX = np.array([0, 2, 3, 5, 8, 11, 12])
BIM_ROWS = 14


@pytest.fixture
def bfile(tmp_path) -> str:
    lines = [f"{1 + k // 9}\trs{k}\t0\t{10 * k}\tA\tC\n" for k in range(BIM_ROWS)]
    (tmp_path / "g.bim").write_text("".join(lines))
    return str(tmp_path / "g")


def export(folder, path, *traits, bfile=None):
    return mpgls.export(store=path, trait=traits, bfile=bfile, out=folder / "e", verbose=True)


def make_records(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = np.zeros(INDEX.size, RECORD_DTYPE)
    # numbers that float32 holds, so that both stores give the same table
    records["beta"] = rng.standard_normal(INDEX.size).astype("f4").astype("U").astype("f8")
    records["se"] = rng.uniform(0.1, 1, INDEX.size).astype("f4").astype("U").astype("f8")
    records["eaf"], records["n"] = rng.uniform(size=INDEX.size), 50 + np.arange(INDEX.size)
    records["note"][3] = 1
    records["beta"][3] = records["se"][3] = np.nan
    return records


def make_store(path: Path, block: int, traits: list[str], attributes: dict) -> ResultStore:
    shape = StoreShape(INDEX, block, block_edges(INDEX.size, block), {name: ["intercept"] for name in traits})
    return create_store(path, shape, Mark({"command": "test"}), attributes)


def save_df(store: ResultStore, trait: int, df: int) -> None:
    record = given(0.5)
    record["df"] = df
    save_null(store, 0, trait, record, np.full((2, 1), np.nan))


def make_single(path: Path, bfile: str, **attributes) -> Path:
    known = {"bfile": bfile, "bim_rows": BIM_ROWS, "test": "t"} | attributes
    store, writer = make_store(path, 3, ["x", "y"], {k: v for k, v in known.items() if v is not None}), UnitWriter(path)
    for trait, df in enumerate((40, 41)):
        records, place = make_records(trait), store.traits[trait]
        for k in range(store.blocks):
            snps = store.block_range(k)
            offset = place.records_offset + snps.start * RECORD_DTYPE.itemsize
            writer.write([(offset, records[None, snps.start : snps.stop])], place.sum_offset(k))
        save_df(store, trait, df)
    writer.close()
    return path


def make_dense(path: Path, bfile: str) -> Path:
    shape = DenseShape(INDEX, block_edges(INDEX.size, 3), 3, ["x", "y", "flat"], np.array([0, 1, 1]))
    store = create_dense(path, shape, Mark({}), {"test": "t", "bfile": bfile, "bim_rows": BIM_ROWS})
    writer = UnitWriter(path)
    for trait, seed in enumerate((0, 1, 1)):
        records = make_records(seed)
        for k in range(store.blocks):
            snps, parts = store.block_range(k), []
            for name in ("beta", "se"):
                tile = np.full((1, 3), np.nan, "f4")
                tile[0, : len(snps)] = records[name][snps] if trait < 2 else np.nan
                parts.append((store.tile_offset(name, k, trait), tile))
            writer.write(parts, store.sum_offset(k, trait))
            store.write_snps(int(store.group[trait]), k, *(records[name][snps] for name in ("eaf", "n", "note")))
    writer.close()
    nulls = unknown(3)
    nulls["df"], nulls["s2"] = (40, 41, 0), (1.0, 1.0, np.nan)
    save_nulls(store, 0, 0, nulls)
    return path


def expected(bfile: str, seed: int, df: int) -> bytes:
    whole = VariantTable.open(bfile + ".bim").read(0, BIM_ROWS)
    chosen = type(whole)(*([getattr(whole, n)[k] for k in INDEX] for n in ("chrom", "id")), whole.pos[INDEX],
                         *([getattr(whole, n)[k] for k in INDEX] for n in ("a1", "a2")))  # fmt: skip
    return "\t".join(COLUMNS).encode() + b"\n" + format_rows(chosen, make_records(seed), df, "t")


@pytest.mark.parametrize("make", [make_single, make_dense])
def test_both_stores_give_the_table_of_single_trait(tmp_path, bfile, make):
    path = make(tmp_path / "o.h5", bfile)
    results = export(tmp_path, path, "y")
    assert list(results.tables) == ["y"] and results.table().size == INDEX.size
    text = (tmp_path / "e.tsv").read_bytes()
    assert text == expected(bfile, 1, 41) and text.startswith("\t".join(COLUMNS).encode())
    assert text.count(b"monomorphic") == 1
    export(tmp_path, path, "y", "x")
    assert (tmp_path / "e.y.tsv").read_bytes() == text
    assert (tmp_path / "e.x.tsv").read_bytes() == expected(bfile, 0, 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("e.export.json", "e.export.log", "e.tsv", "e.x.tsv", "e.y.tsv", "g.bim", "o.h5")
    ]


def test_another_bfile_overrides_and_must_fit(tmp_path, bfile):
    path = make_single(tmp_path / "o.h5", str(tmp_path / "moved"))
    with pytest.raises(UsageError, match="no longer at"):
        export(tmp_path, path, "x")
    export(tmp_path, path, "x", bfile=bfile)
    assert (tmp_path / "e.tsv").read_bytes() == expected(bfile, 0, 40)
    lines = (tmp_path / "g.bim").read_text().splitlines(keepends=True)
    (tmp_path / "short.bim").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"short.bim lists 13 SNPs, but .* was made with 14"):
        export(tmp_path, path, "x", bfile=str(tmp_path / "short"))
    (tmp_path / "short.bim").write_text("".join(lines[:5]))
    path = make_single(tmp_path / "p.h5", bfile, bim_rows=None)
    with pytest.raises(InputError, match=r"lists 5 SNPs, but .* was made with at least 13"):
        export(tmp_path, path, "x", bfile=str(tmp_path / "short"))


def test_another_bim_of_the_same_length_is_told(tmp_path, bfile, capsys):
    digest = file_identity(f"{bfile}.bim")["sha256"]
    path = make_single(tmp_path / "o.h5", bfile, bim_sha256=digest)
    export(tmp_path, path, "x")
    assert "is not what" not in capsys.readouterr().out
    (tmp_path / "renamed.bim").write_text(Path(f"{bfile}.bim").read_text().replace("rs", "snp"))
    export(tmp_path, path, "x", bfile=str(tmp_path / "renamed"))
    assert "renamed.bim is not what" in capsys.readouterr().out


@pytest.mark.parametrize("make", [make_single, make_dense])
def test_traits_that_cannot_be(tmp_path, bfile, make):
    path = make(tmp_path / "o.h5", bfile)
    with pytest.raises(UsageError, match=r"has no trait 'z'; its traits are x, y"):
        export(tmp_path, path, "z")
    with pytest.raises(UsageError, match=r"traits: choose with --trait \(x, y"):
        export(tmp_path, path)


def test_what_is_not_there_is_said(tmp_path, bfile):
    dense = make_dense(tmp_path / "d.h5", bfile)
    with pytest.raises(InputError, match=r"'flat' .* was not tested"):
        exportable(open_dense(dense), 2)
    with h5py.File(dense, "r+") as file:
        file["sums"][1, 0] = 0
    with pytest.raises(InputError, match=r"'x' .* is incomplete: 2 of 3 blocks"):
        exportable(open_dense(dense), 0)
    assert exportable(open_dense(dense), 1).df == 41
    single = make_single(tmp_path / "s.h5", bfile, test=None, bfile_=None)
    with pytest.raises(InputError, match="does not say the test of trait 'x'"):
        exportable(open_store(single), 0)
    make_store(tmp_path / "n.h5", 7, ["x"], {"test": "t"})
    with pytest.raises(InputError, match=r"'x' .* is incomplete: 0 of 1 blocks"):
        exportable(open_store(tmp_path / "n.h5"), 0)
    with h5py.File(tmp_path / "n.h5", "r+") as file:
        file["traits/x/sums"][...] = 1
    with pytest.raises(InputError, match="does not say the degrees of freedom"):
        exportable(open_store(tmp_path / "n.h5"), 0)
    save_df(open_store(tmp_path / "n.h5"), 0, 7)
    with pytest.raises(UsageError, match="does not name its genotypes"):
        export(tmp_path, tmp_path / "n.h5")
    assert [path.name for path in tmp_path.glob("e*")] == ["e.export.log"]


@pytest.mark.parametrize("make", [make_single, make_dense])
def test_damaged_results_are_not_exported(tmp_path, bfile, make):
    path = make(tmp_path / "o.h5", bfile)
    data = bytearray(path.read_bytes())
    at = data.index(make_records(1)["beta"][4].astype("f8" if make is make_single else "f4").tobytes())
    data[at] ^= 8
    path.write_bytes(data)
    export(tmp_path, path, "x")
    with pytest.raises(StorageError, match=r"o\.h5 is damaged: block 1 of trait 'y' is not what was written"):
        export(tmp_path, path, "y")


def test_a_damaged_null_model_is_not_exported(tmp_path, bfile):
    path = make_single(tmp_path / "o.h5", bfile)
    with h5py.File(path, "r+") as file:
        null = file["nulls"][0, 1]
        null["df"] = 42
        file["nulls"][0, 1] = null
    export(tmp_path, path, "x")
    with pytest.raises(InputError, match=r"o\.h5 is damaged: the null model of trait 'y' is not what was written"):
        export(tmp_path, path, "y")


def test_what_is_no_store(tmp_path):
    (tmp_path / "text.h5").write_text("text")
    for name, error, part in (
        ("none.h5", StorageError, "there is no result store"),
        (".", StorageError, "it is a directory"),
        ("text.h5", InputError, "it is not an HDF5 file"),
    ):
        with pytest.raises(error, match=part):
            export(tmp_path, tmp_path / name)
