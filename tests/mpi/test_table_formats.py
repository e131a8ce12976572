"""Tables in all formats from the commands, from export, and joined from jobs of a chromosome each."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_kinship,
    read_plink,
    read_rows,
    relabel_chromosomes,
    write_lines,
    write_table,
)  # fmt: skip

import mpgls
from mpgls.errors import InputError, UsageError

pytestmark = few_ranks

N, M = 67, 113
LABELS = np.repeat(("1", "2", "X"), (50, 36, 27))


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    prefix = str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, traits=2, chromosomes=3, missing=0.03, seed=4, out=prefix, comm=module_comm)

    def place():
        relabel_chromosomes(prefix, LABELS.tolist())
        rows = [line.split() for line in Path(f"{prefix}.bim").read_text().splitlines()]
        write_lines(f"{prefix}.bim", ["\t".join([*row[:3], str(700 * k + 1), *row[4:]]) for k, row in enumerate(rows)])

    on_root(module_comm, place)
    mpgls.kinship(bfile=prefix, loco=True, all_chromosomes=True, out=module_folder / "K", comm=module_comm)
    return SimulatedStudy(module_folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", read_plink(prefix))


def scan(comm, study, out, **options):
    usual = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": "trait1", "grm": study.folder / "K.h5"}
    return mpgls.single_trait(**(usual | {"no_plots": True, "out": study.folder / out, "comm": comm} | options))


def read_text(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def numbers(rows, name):
    return np.array([float(row[name].replace("NA", "nan")) for row in rows])


def test_every_format_of_a_scan_and_of_its_store_says_the_same(comm, study):
    pytest.importorskip("pyarrow")
    folder, both = study.folder, "tsv,tsv.gz,parquet,ssf"
    made = scan(comm, study, "all", covar=study.covar, build=38, maf=0.01, format=both)
    mpgls.export(store=folder / "all.h5", format=both, out=folder / "again", comm=comm)
    names = [".tsv", ".tsv.gz", ".tsv.gz.tbi", ".parquet", ".ssf.tsv", ".ssf.tsv-meta.yaml"]
    assert {Path(path).name for path in made.files} == {"all.h5", *(f"all.trait1{name}" for name in names)}
    if comm.rank:
        return
    rows = read_rows(folder / "all.trait1.tsv")
    table = made.table()
    for name in names[:5]:
        one, two = ((folder / f"{prefix}{name}").read_bytes() for prefix in ("all.trait1", "again"))
        assert one == two, name
    assert gzip.decompress((folder / "again.tsv.gz").read_bytes()) == (folder / "again.tsv").read_bytes()
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(folder / "again.parquet").to_pydict()
    assert columns["ID"] == [row["ID"] for row in rows] and columns["POS"] == [int(row["POS"]) for row in rows]
    assert columns["BETA"] == [float(row["BETA"]) for row in rows] == table["BETA"].tolist()
    ssf = read_rows(folder / "again.ssf.tsv")
    assert [row["beta"] for row in ssf] == [row["BETA"] for row in rows]
    assert {row["chromosome"] for row in ssf} == {"1", "2", "23"}
    facts = (folder / "all.trait1.ssf.tsv-meta.yaml").read_text()
    assert 'genome_assembly: "GRCh38"' in facts and "minor_allele_freq_lower_limit: 0.01" in facts
    assert '- "covar1"\n' in facts and "intercept" not in facts and f"sample_size: {N}\n" in facts


def test_resume_makes_the_formats_that_are_not_there(comm, study, shared_tmp_path):
    out = shared_tmp_path / "r"
    scan(comm, study, out)
    scan(comm, study, out, format="tsv.gz", resume=True)
    log = Path(f"{out}.log").read_text()
    assert "nothing is left to do" not in log and "blocks are done" in log
    scan(comm, study, out, format="tsv.gz", resume=True)
    assert "nothing is left to do" in Path(f"{out}.log").read_text()
    assert Path(f"{out}.trait1.tsv").exists() and Path(f"{out}.trait1.tsv.gz.tbi").exists()
    scan(comm, study, out, format="ssf")  # a fresh run leaves no table of an earlier one
    assert sorted(path.name for path in shared_tmp_path.iterdir() if ".trait1" in path.name) == [
        "r.trait1.ssf.tsv", "r.trait1.ssf.tsv-meta.yaml"
    ]  # fmt: skip


def test_voxels_and_hits(comm, study, shared_tmp_path):
    out, usual = shared_tmp_path / "v", {"bfile": study.bfile, "pheno": study.pheno, "no_plots": True, "comm": comm}
    vgwas = {**usual, "permutations": 9, "sparsity_threshold": 0.1, "out": out}
    mpgls.vgwas(**vgwas, format="tsv.gz")
    mpgls.export(store=f"{out}.voxels.h5", format="tsv,tsv.gz", out=shared_tmp_path / "e", comm=comm)
    packed = (shared_tmp_path / "e.tsv.gz").read_bytes()
    assert gzip.decompress(packed) == (shared_tmp_path / "e.tsv").read_bytes()
    for name in (".tsv.gz", ".tsv.gz.tbi"):
        assert Path(f"{out}.snps{name}").read_bytes() == (shared_tmp_path / f"e{name}").read_bytes()
    with pytest.raises(UsageError, match=r"begin anew to make tables in another format than --format tsv\.gz: give"):
        mpgls.vgwas(**vgwas, format="tsv", resume=True)
    many = {**usual, "grm": study.folder / "K.h5", "p_threshold": 0.2, "out": shared_tmp_path / "m"}
    mpgls.multi_trait(**many, format="tsv.gz,tsv")
    packed = gzip.decompress((shared_tmp_path / "m.hits.tsv.gz").read_bytes())
    assert packed == (shared_tmp_path / "m.hits.tsv").read_bytes() and packed.count(b"\n") > 5
    assert not (shared_tmp_path / "m.hits.tsv.gz.tbi").exists()
    for command in (mpgls.vgwas, mpgls.multi_trait):
        with pytest.raises(UsageError, match="--format ssf is for summary statistics of one trait"):
            command(**(many if command is mpgls.multi_trait else vgwas), format="ssf")
    with pytest.raises(UsageError, match="has no effects on a trait, so it cannot be GWAS-SSF"):
        mpgls.export(store=f"{out}.voxels.h5", format="ssf", out=shared_tmp_path / "e", comm=comm)
    with pytest.raises(UsageError, match=r"has no traits to choose"):
        mpgls.export(store=f"{out}.voxels.h5", trait="y", out=shared_tmp_path / "e", comm=comm)


@pytest.mark.parametrize("method", ["centered", "standardized"])
def test_kinships_of_chromosomes_add_up_to_that_of_all(comm, study, shared_tmp_path, method):
    usual = {"bfile": study.bfile, "loco": True, "method": method, "comm": comm}
    mpgls.kinship(**usual, all_chromosomes=True, out=shared_tmp_path / "K")
    parts = [shared_tmp_path / f"K{label}" for label in ("1", "2", "X")]
    for label, part in zip(("1", "2", "X"), parts, strict=True):
        mpgls.kinship(**usual, chr=label, out=part)
    mpgls.merge(kinships=[f"{part}.h5" for part in parts], out=shared_tmp_path / "J", comm=comm)
    scan(comm, study, shared_tmp_path / "one", grm=shared_tmp_path / "K.h5", loco=True)
    scan(comm, study, shared_tmp_path / "two", grm=shared_tmp_path / "J.h5", loco=True)
    if comm.rank:
        return
    np.testing.assert_allclose(*(read_kinship(shared_tmp_path / f"{name}.h5") for name in "JK"), rtol=1e-12, atol=1e-15)
    with h5py.File(shared_tmp_path / "J.h5") as joined, h5py.File(shared_tmp_path / "K.h5") as whole:
        assert joined.attrs["snps"] == whole.attrs["snps"] > 100
        np.testing.assert_array_equal(joined["snps"][...], whole["snps"][...])
        for k in "012":
            assert dict(joined[f"loco/{k}"].attrs) == dict(whole[f"loco/{k}"].attrs)
            np.testing.assert_allclose(joined[f"loco/{k}"][...], whole[f"loco/{k}"][...], rtol=1e-12, atol=1e-12)
    one, two = (numbers(read_rows(shared_tmp_path / f"{name}.trait1.tsv"), "LOG10P") for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_kinships_that_are_no_parts_of_one(comm, study, shared_tmp_path):
    def kinship(name, **options):
        mpgls.kinship(**({"bfile": study.bfile, "chr": name[0], "out": shared_tmp_path / name, "comm": comm} | options))
        return shared_tmp_path / f"{name}.h5"

    def refused(other, text):
        with pytest.raises(InputError, match=text):
            mpgls.merge(kinships=(first, other), out=shared_tmp_path / "J", comm=comm)

    on_root(comm, lambda: write_lines(shared_tmp_path / "drop.txt", [study.plink.ids[5]]))
    first = kinship("1")
    refused(kinship("1b"), r"1.h5 and .*1b.h5 have 50 SNPs in common")
    refused(
        kinship("2", remove=shared_tmp_path / "drop.txt"), "not of the same samples: sample .* is in one of them only"
    )
    refused(kinship("2l", loco=True), "2l.h5 has the sums of --loco, and .*1.h5 has none")
    refused(kinship("2s", method="standardized"), "different methods: centered and standardized")
    refused(kinship("2g", method="gcta"), "divides each pair of people by its own number of SNPs")
    two = kinship("2")

    def damage():
        data = bytearray(two.read_bytes())
        data[data.index(read_kinship(two)[7].tobytes()) + 3] ^= 4
        two.write_bytes(data)

    on_root(comm, damage)
    refused(two, "2.h5 is damaged: the row of sample .* is not what was written")
    comm.Barrier()
    assert list(shared_tmp_path.glob("J.h5*")) == []


def test_tables_of_chromosomes_are_that_of_all(comm, study, shared_tmp_path):
    scan(comm, study, shared_tmp_path / "all", format="tsv,tsv.gz,ssf")
    for label in ("1", "2", "X"):
        scan(comm, study, shared_tmp_path / f"chr{label}", chr=label, format="tsv.gz" if label == "2" else "tsv")
    tables = [shared_tmp_path / f"chr{name}" for name in ("1.trait1.tsv", "2.trait1.tsv.gz", "X.trait1.tsv")]
    mpgls.merge(tables=tables, format="tsv,tsv.gz,ssf", out=shared_tmp_path / "J", comm=comm)
    texts = [read_text(table) for table in tables]
    joined = (shared_tmp_path / "J.tsv").read_text()
    assert joined == texts[0] + "".join(text.partition("\n")[2] for text in texts[1:])
    assert gzip.decompress((shared_tmp_path / "J.tsv.gz").read_bytes()).decode() == joined
    one, two = (read_rows(shared_tmp_path / name) for name in ("all.trait1.tsv", "J.tsv"))
    for name in one[0]:
        if name in ("BETA", "SE", "STAT", "LOG10P", "P"):
            np.testing.assert_allclose(numbers(two, name), numbers(one, name), rtol=1e-12, atol=1e-13, err_msg=name)
        else:
            assert [row[name] for row in one] == [row[name] for row in two]
    one, two = (read_rows(shared_tmp_path / f"{name}.ssf.tsv") for name in ("all.trait1", "J"))
    assert [(row["rsid"], row["n"]) for row in one] == [(row["rsid"], row["n"]) for row in two]
    facts = [(shared_tmp_path / f"{name}.ssf.tsv-meta.yaml").read_text() for name in ("all.trait1", "J")]
    assert [text.count('- "trait1"') for text in facts] == [1, 1] and (shared_tmp_path / "J.tsv.gz.tbi").exists()
    assert "no manifest" not in (shared_tmp_path / "J.log").read_text()
    assert read_facts(shared_tmp_path / "J")["snps"] == M

    def refused(text, *others, error=InputError):
        with pytest.raises(error, match=text):
            mpgls.merge(tables=(tables[0], *others), out=shared_tmp_path / "R", comm=comm)

    refused(r"SNP rs1 is in .*chr1.trait1.tsv and in .*all.trait1.tsv", shared_tmp_path / "all.trait1.tsv")
    refused("is given twice", tables[0], error=UsageError)
    for name, options, text in (
        ("wald", {"test": "wald"}, "different analyses: --test was not given, now it is"),
        ("other", {"pheno_name": "trait2"}, "of trait 'trait1', and .* of 'trait2'"),
        ("ratio", {"ratio": "snp"}, "do not have the same columns"),
    ):
        scan(comm, study, shared_tmp_path / name, chr="2", **options)
        trait = options.get("pheno_name", "trait1")
        refused(text, shared_tmp_path / f"{name}.{trait}.tsv")
    moved = shared_tmp_path / "moved.tsv"
    on_root(comm, lambda: moved.write_bytes(gzip.decompress(tables[1].read_bytes())))
    mpgls.merge(tables=(tables[0], moved), out=shared_tmp_path / "R", comm=comm)
    assert "no manifest beside" in (shared_tmp_path / "R.log").read_text()
    on_root(comm, lambda: moved.write_bytes(moved.read_bytes()[:-9]))
    refused(r"moved.tsv, line 37 has no end: the file was cut off there", moved)
    on_root(comm, lambda: moved.write_bytes(moved.read_bytes() + b"\n"))
    refused(r"moved.tsv, line 37 has \d+ fields, and the header 13", moved)
    last = shared_tmp_path / "chrX.trait1.tsv"
    on_root(comm, lambda: last.write_text("".join(last.read_text().splitlines(True)[:-1])))
    refused("chrX.trait1.tsv has 26 rows, and its run wrote 27: it was changed or cut off", last)
    on_root(comm, lambda: write_table(moved, study.plink.ids, {"y": study.trait()}))
    refused("is no table of summary statistics", moved)
