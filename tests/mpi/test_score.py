"""``mpgls score``: weights of ridge on people who were not in the study, against scikit-learn."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ranks import few_ranks
from sklearn.linear_model import Ridge as SklearnRidge
from small_study import (
    PlinkFiles,
    on_root,
    read_plink,
    read_rows,
    read_table,
    write_genotypes,
    write_lines,
    write_table,
)

import mpgls
from mpgls.errors import Stopped, UsageError

N, NEW, M = 83, 40, 61
ALPHA = 2.0


@dataclass(frozen=True)
class Files:
    """People of whom the first N are in the study, their genotypes and traits, and weights of ridge for both traits."""

    folder: Path
    bfile: str
    plink: PlinkFiles
    Y: np.ndarray
    weights: str

    @property
    def used(self):
        """(M,) bool: SNPs that vary in the study."""
        return np.nanstd(self.plink.dosages[:N], axis=0) > 0

    def parts(self):
        """What each SNP (M,) adds for each new person and trait, by ridge regression of the first N people."""
        G = self.plink.dosages
        X = np.where(np.isnan(G), 0.0, G - np.nanmean(G[:N], axis=0))
        X[:, self.used] /= np.sqrt((X[:N, self.used] ** 2).mean(axis=0))
        X[:, ~self.used] = 0.0
        model = SklearnRidge(alpha=ALPHA * self.used.sum()).fit(X[:N], self.Y[:N])
        return np.einsum("ij,tj->jit", X[N:], model.coef_)

    def expected(self):
        """What is predicted of new people, less the intercept."""
        return self.parts().sum(axis=0)


@pytest.fixture(scope="module")
def files(module_comm, module_folder):
    comm, prefix = module_comm, str(module_folder / "g")
    mpgls.simulate(samples=N + NEW, snps=M, traits=2, missing=0.05, seed=8, out=prefix, comm=comm)
    plink = read_plink(prefix)
    pheno, keep = f"{prefix}.pheno.tsv", module_folder / "study.txt"
    on_root(comm, lambda: write_lines(keep, plink.ids[:N]))
    mpgls.ridge(
        bfile=prefix, pheno=pheno, keep=keep, alphas=[ALPHA], permutations=0, outer_folds=2, inner_folds=2,
        weights="all", no_plots=True, out=module_folder / "r", threads=1, comm=comm,
    )  # fmt: skip
    Y = np.column_stack(list(read_table(pheno).values()))
    return Files(module_folder, prefix, plink, Y, str(module_folder / "r.weights.tsv"))


def score(comm, files, out, **options):
    prefix = files.folder / out
    given = {"bfile": files.bfile, "weights": files.weights, **options}
    made = mpgls.score(out=prefix, threads=1, comm=comm, **given)
    comm.Barrier()
    return made


def scores(made):
    return np.column_stack(list(read_table(made.tables["scores"]).values()))


def new_people(files, other=None):
    """A fileset of the people who are not in the study: SNPs in another order, the alleles of ``other`` exchanged."""
    prefix, order = files.folder / "new", np.random.default_rng(1).permutation(M)
    rows = [line.split() for line in Path(f"{files.bfile}.bim").read_text().splitlines()]
    dosages = files.plink.dosages[N:].copy()
    for k in () if other is None else other:
        rows[k][4:] = rows[k][:3:-1]
        dosages[:, k] = 2 - dosages[:, k]
    write_lines(f"{prefix}.bim", ["\t".join(rows[k]) for k in order])
    write_lines(f"{prefix}.fam", [f"{fid} {iid} 0 0 0 -9" for fid, iid in files.plink.ids[N:]])
    write_genotypes(prefix, dosages[:, order])
    return str(prefix)


def test_scores_of_new_people_are_those_of_scikit_learn(comm, files):
    prefix = comm.bcast(new_people(files) if comm.rank == 0 else None)
    made = score(comm, files, "s", bfile=prefix, block_size=7)
    np.testing.assert_allclose(scores(made), files.expected(), rtol=0, atol=1e-9)
    assert [tuple(row[name] for name in ("FID", "IID")) for row in read_rows(made.tables["scores"])] == files.plink.ids[
        N:
    ]


@few_ranks
def test_exchanged_alleles_and_absent_snps(comm, files):
    """A SNP that the new genotypes lack adds nothing, as if everybody were missing."""
    listed, exchanged = files.used.sum(), range(0, M, 3)
    absent = int(np.flatnonzero(files.used)[5])
    prefix = comm.bcast(new_people(files, exchanged) if comm.rank == 0 else None)
    on_root(comm, lambda: write_lines(files.folder / "absent.txt", [files.plink.snps[absent]]))
    made = score(comm, files, "s", bfile=prefix, exclude=files.folder / "absent.txt")
    np.testing.assert_allclose(scores(made), files.expected() - files.parts()[absent], rtol=0, atol=1e-9)
    log, swapped = Path(f"{made.prefix}.log").read_text(), sum(files.used[k] for k in exchanged if k != absent)
    assert f"{listed - 1} of {listed} SNPs are in the genotypes, {swapped} of them swapped" in log
    assert f"1 of {listed} SNPs are not used, so they count as average: 1 not there" in log


@few_ranks
def test_exchanged_alleles_of_snps_that_not_everybody_has_twice(comm, files):
    """Whichever allele is A1, men and women have the same values; but not where a man's copy of X counts once."""
    labels = ["X", "Y", "MT", *["1"] * (M - 3)]
    first, exchanged = str(files.folder / "sexed"), str(files.folder / "exchanged")

    def write():
        rows = [line.split() for line in Path(f"{files.bfile}.bim").read_text().splitlines()]
        men = [k % 3 == 0 for k in range(N + NEW)]
        fam = [f"{fid} {iid} 0 0 {2 - man} -9" for (fid, iid), man in zip(files.plink.ids, men, strict=True)]
        for prefix, swap in ((first, False), (exchanged, True)):
            alleles = [row[4:][:: -1 if swap else 1] for row in rows]
            parts = zip(labels, rows, alleles, strict=True)
            write_lines(f"{prefix}.bim", [" ".join([label, *row[1:4], *pair]) for label, row, pair in parts])
            write_lines(f"{prefix}.fam", fam)
            write_genotypes(prefix, 2 - files.plink.dosages if swap else files.plink.dosages)
        bim = [line.split() for line in Path(f"{first}.bim").read_text().splitlines()]
        numbers = zip(bim, np.random.default_rng(5).standard_normal(M).tolist(), strict=True)
        table = [f"{c} {pos} {name} {a1} {a2} 0.3 0.6 {w!r}" for (c, name, _, pos, a1, a2), w in numbers]
        write_lines(files.folder / "w.tsv", ["CHR POS ID EA NEA EAF MEAN trait", *table])

    on_root(comm, write)
    weights = files.folder / "w.tsv"
    plain, swapped = (score(comm, files, out, bfile=out, weights=weights) for out in (first, exchanged))
    np.testing.assert_allclose(scores(swapped), scores(plain), rtol=0, atol=1e-12)
    with pytest.raises(UsageError, match=r"--x-model 1: .*, line 1 has the alleles of a SNP on X the other way round"):
        score(comm, files, "s", bfile=exchanged, weights=weights, x_model=1)


@few_ranks
def test_fit_is_that_of_those_who_have_the_trait(comm, files):
    def write():
        y = files.Y[N:, 1].copy()
        y[3:7] = np.nan
        write_table(files.folder / "new.tsv", files.plink.ids[N:-5], {"trait2": y[:-5]})

    on_root(comm, write)
    prefix = comm.bcast(new_people(files) if comm.rank == 0 else None)
    made = score(comm, files, "s", bfile=prefix, pheno=files.folder / "new.tsv")
    (row,) = read_rows(made.tables["fit"])
    has = np.r_[0:3, 7 : NEW - 5]
    y, g = files.Y[N:, 1][has], files.expected()[has, 1]
    assert row["TRAIT"] == "trait2" and row["N"] == str(has.size)
    assert float(row["R"]) == pytest.approx(np.corrcoef(y, g)[0, 1], rel=1e-9)
    left = (y - y.mean()) - (g - g.mean())
    assert float(row["R2"]) == pytest.approx(1 - left @ left / np.var(y) / y.size, rel=1e-9)


@few_ranks
def test_a_filter_by_counts_drops_snps_among_those_who_are_scored(comm, files):
    prefix = comm.bcast(new_people(files) if comm.rank == 0 else None)
    made = score(comm, files, "s", bfile=prefix, geno=0.06)
    dropped = files.plink.missing(slice(N, None)) > 0.06
    assert 0 < dropped.sum() < M
    np.testing.assert_allclose(scores(made), files.parts()[~dropped].sum(axis=0), rtol=0, atol=1e-9)
    assert f"{(dropped & files.used).sum()} dropped by --geno" in Path(f"{made.prefix}.log").read_text()


@few_ranks
def test_a_finished_run_is_left_as_it_is(comm, files):
    made = score(comm, files, "twice")
    on_root(comm, lambda: shutil.copy(made.tables["scores"], files.folder / "before"))
    before = made.tables["scores"].stat().st_mtime_ns
    again = score(comm, files, "twice", resume=True)
    assert again.tables == made.tables and made.tables["scores"].stat().st_mtime_ns == before


def test_a_stopped_run_is_resumed(comm, files):
    with pytest.raises(Stopped):
        score(comm, files, "stopped", max_hours=1e-9)
    assert not (files.folder / "stopped.scores.tsv").exists()
    made = score(comm, files, "stopped", resume=True)
    np.testing.assert_allclose(scores(made)[N:], files.expected(), rtol=0, atol=1e-9)
