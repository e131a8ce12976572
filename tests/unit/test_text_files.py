"""Odd but legal text files of every kind are understood as the plain one is, and the log says in what they are odd."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpgls.study.coordinates import read_coordinates
from mpgls.study.filters import SnpFilter, select_snps
from mpgls.study.grm import open_kinship
from mpgls.study.h2_file import read_h2_by_chromosome, read_h2_file
from mpgls.study.nifti import open_images
from mpgls.study.plink import VariantTable, read_fam
from mpgls.study.sample_labels import sample_labels
from mpgls.study.tables import read_ids, read_table
from mpgls.study.text import read_words
from mpgls.study.trait_matrix import open_traits

PEOPLE = [("F1", "a1"), ("#12", "I20"), ("0", "#3"), ("FÅ", "ü"), ("F1", "a2")]
BIM = [f"{1 + k // 4}\trs{k}\t0\t{1000 * k}\tA\tCG" for k in range(9)]


def people(columns: Callable[[int], str]) -> list[str]:
    return [f"{fid}\t{iid}\t{columns(k)}".rstrip("\t") for k, (fid, iid) in enumerate(PEOPLE)]


def parsed(path: Path, kind: str) -> Any:
    """What a reader makes of the file, as something that can be compared."""
    if kind == "fam":
        samples = read_fam(path)
        return samples.ids(), samples.phenotype.tolist()
    if kind == "bim":
        table = VariantTable.open(path)
        return [(p.chrom, p.id, p.pos.tolist(), p.a1, p.a2) for p in (table.read(0, table.count), table.read(3, 7))]
    if kind in ("pheno", "covar"):
        table = read_table(path, ["age", "sex"])
        assert open_traits(path, ["age", "sex"]).ids == table.ids
        return table.ids, table.names, table.values.tolist()
    if kind in ("keep", "keep with header"):
        return read_ids(path).ids
    if kind == "names":
        selection = select_snps(VariantTable.open(path.with_name("plain.bim")), SnpFilter(extract=str(path)))
        return read_words(path)[0], selection.index.tolist()
    if kind == "grm.id":
        path.with_name("k.grm.bin").write_bytes(np.zeros(15, dtype="<f4").tobytes())
        path.rename(path.with_name("k.grm.id"))
        return open_kinship(path.with_name("k")).ids
    if kind == "images":
        images = open_images(path)
        return images.ids, images.paths, images.without
    if kind == "h2":
        return read_h2_file(path)
    if kind == "h2 by chromosome":
        return read_h2_by_chromosome(path)
    if kind == "coordinates":
        return read_coordinates(path, ["v2", "v1"]).tolist()
    assert kind == "labels"
    return sample_labels(path, PEOPLE).tolist()


KINDS = {
    "fam": people(lambda k: f"0\t0\t1\t{k}.5"),
    "bim": BIM,
    "pheno": ["FID\tIID\tage\tnote\tsex", *people(lambda k: f"{k}.25\ttext\t{k % 2}")],
    "covar": ["#FID\tIID\tsex\tage", *people(lambda k: f"{k % 2}\t-1e{k}")],
    "keep": people(lambda k: ""),
    "keep with header": ["#FID\tIID\tage", *people(lambda k: f"{k}")],
    "names": ["rs3", "rs1", "rs7", "never"],
    "grm.id": people(lambda k: ""),
    "images": ["FID\tIID\tPATH", *people(lambda k: "NA" if k == 1 else "plain.bim")],
    "h2": ["TRAIT\tN\tH2", "CD8\t5\t0.25", "#x\t7\t0.5"],
    "h2 by chromosome": ["TRAIT\tCHR\tH2", "a\tchr01\t0.25", "a\tX\t0.5"],
    "coordinates": ["TRAIT\tI\tJ\tK", "v1\t1\t2\t3", "#v\t0\t0\t0", "v2\t-4\t5\t6"],
    "labels": ["FID\tIID\tSITE", *people(lambda k: "AB"[k % 2])],
}

ODD: dict[str, tuple[Callable[[str], bytes], str]] = {
    "byte order mark": (lambda text: b"\xef\xbb\xbf" + text.encode(), "byte order mark"),
    "CR LF": (lambda text: text.replace("\n", "\r\n").encode(), "CR LF"),
    "CR": (lambda text: text.replace("\n", "\r").encode(), "lines end in CR"),
    "UTF-16": (lambda text: text.encode("utf-16"), "UTF-16"),
    "gzip": (lambda text: gzip.compress(text.encode()), "gzip"),
    "gzip of everything odd": (
        lambda text: gzip.compress(b"\xef\xbb\xbf" + (text.replace("\n", " \t\r\n") + "\r\n").encode()),
        "gzip",
    ),
    "no last line end": (lambda text: text.removesuffix("\n").encode(), ""),
    "empty lines at the end": (lambda text: (text + "\n \t\n\n").encode(), "3 empty lines at the end"),
    "trailing tabs": (lambda text: text.replace("\n", "\t\n").encode(), ""),
    "trailing blanks": (lambda text: text.replace("\n", "   \n").encode(), ""),
    "blanks": (lambda text: text.replace("\t", " ").encode(), ""),
    "runs of blanks": (lambda text: ("  " + text.replace("\t", "   ")).encode(), ""),
    "blanks and tabs": (lambda text: text.replace("\t", " \t ").encode(), ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ODD)
def test_odd_but_legal_files_mean_what_the_plain_one_means(tmp_path: Path, kind: str, how: str) -> None:
    (tmp_path / "plain.bim").write_text("\n".join(BIM))
    text = "\n".join(KINDS[kind]) + "\n"
    path = tmp_path / "plain.txt"
    path.write_text(text)
    expected = parsed(path, kind)
    path = tmp_path / "odd.txt"
    path.write_bytes(ODD[how][0](text))
    assert parsed(path, kind) == expected


@pytest.mark.parametrize("how", ODD)
def test_one_line_says_what_was_understood(tmp_path: Path, how: str) -> None:
    make, fact = ODD[how]
    path = tmp_path / "odd.txt"
    readers: dict[str, Callable[[Path], Any]] = {
        "fam": read_fam, "bim": VariantTable.open, "pheno": read_table, "keep": read_ids, "images": open_images,
    }  # fmt: skip
    (tmp_path / "plain.bim").write_text("")
    for kind, reader in readers.items():
        lines = KINDS[kind] if kind != "pheno" else KINDS["covar"]
        path.write_bytes(make("\n".join(lines) + "\n"))
        summary = reader(path).summary
        assert summary.startswith(f"{path}: ") and "\n" not in summary
        assert fact in summary
        assert ("columns FID and IID" in summary) == (kind in ("pheno", "keep", "images"))


def test_the_plain_files_are_read_right(tmp_path: Path) -> None:
    """The other tests compare with the plain file, so here are its values."""
    (tmp_path / "plain.bim").write_text("\n".join(BIM))
    path = tmp_path / "plain.txt"
    found = {}
    for kind, lines in KINDS.items():
        path.write_text("\n".join(lines) + "\n")
        found[kind] = parsed(path, kind)
    assert found["fam"] == (PEOPLE, [0.5, 1.5, 2.5, 3.5, 4.5])
    assert found["bim"][0][1] == [f"rs{k}" for k in range(9)] and found["bim"][1][2] == [3000, 4000, 5000, 6000]
    assert found["pheno"] == (PEOPLE, ("age", "sex"), [[k + 0.25, k % 2] for k in range(5)])
    assert found["covar"] == (PEOPLE, ("age", "sex"), [[-(10.0**k), k % 2] for k in range(5)])
    assert found["keep"] == found["keep with header"] == found["grm.id"] == PEOPLE
    assert found["names"] == (["rs3", "rs1", "rs7", "never"], [1, 3, 7])
    assert found["images"][0] == [PEOPLE[k] for k in (0, 2, 3, 4)] and found["images"][2] == 1
    assert found["h2"] == {"CD8": 0.25, "#x": 0.5}
    assert found["h2 by chromosome"] == {("a", "1"): 0.25, ("a", "X"): 0.5, ("a", "23"): 0.5}
    assert found["coordinates"] == [[-4, 5, 6], [1, 2, 3]]
    assert found["labels"] == [0, 1, 0, 1, 0]
