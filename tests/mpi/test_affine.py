"""No number depends on how a trait or covariate is written, in any command, against an oracle in extended precision.

A draw is a trait a y + c beside covariates that are mixed, scaled and shifted: 8 rounds of 5 traits for each of 7
commands, in double precision, are 280 draws. The oracle gets the float64 numbers that the files hold, so that only
the commands' own rounding is compared. Ranks take rounds in turn, each alone.

h2 is compared to the tolerance of its search, which is absolute; that BETA, SE and p are right to 1e-8 shows that it
is sharp enough.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import exact_oracle as exact
import h5py
import numpy as np
import pytest
from mpi4py import MPI
from small_study import PlinkFiles, read_columns, read_facts, read_plink, read_results, read_rows, write_table

import mpgls

pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="the draws are compared by one process")

N, M, CHROMOSOMES, TRAITS, ROUNDS = 47, 24, 3, 5, 8
EVERY, ALPHA = 2, 0.5
DOUBLE, MIXED = 1e-8, 2e-4
NAMES = [f"y{j}" for j in range(TRAITS)]


@dataclass(frozen=True, eq=False)
class Genotypes:
    """Simulated genotypes with a kinship, its chromosomes' sums and its eigendecomposition, of one rank."""

    folder: Path
    plink: PlinkFiles

    @functools.lru_cache  # noqa: B019 (as many as there are chromosomes)
    def spectrum(self, without, every):
        """Of the kinship of the SNPs that are not on a chromosome; every k-th, standardised, for k > 1."""
        chosen = np.arange(0, M, every)
        X = self.plink.centred()[:, chosen[self.plink.chromosomes[chosen] != without]].astype(exact.REAL)
        if every > 1:
            X /= np.sqrt(np.square(X).mean(axis=0))
        return exact.Spectrum.of(exact.exact_scaled(X @ X.T))


@dataclass(frozen=True, eq=False)
class Round:
    """Traits Y (N, TRAITS) and covariates C (N, k) as the files have them; even rounds have no covariates or two."""

    genotypes: Genotypes
    number: int
    Y: np.ndarray
    C: np.ndarray

    @classmethod
    def of(cls, genotypes, number):
        """Means up to 1e6 standard deviations, in every fourth round up to 1e9."""
        rng, k = np.random.default_rng(1000 + number), number % 4
        largest = 9 if k == 3 else 6
        effects = genotypes.plink.centred() @ rng.normal(size=(M, TRAITS))
        Y = effects * rng.uniform(0, 1, TRAITS) + 3 * rng.normal(size=(N, TRAITS))
        C = rng.normal(size=(N, k)) @ rng.normal(size=(k, k))
        return cls(genotypes, number, written(Y, rng, largest), written(C, rng, largest))

    @property
    def X(self):
        return np.column_stack([np.ones(N), self.C])

    def run(self, command, out="o", **options):
        """The command on the traits and covariates of the round; returns the prefix of its outputs."""
        out = f"{out}-{command.__name__}"  # a prefix belongs to one command
        folder, ids = self.genotypes.folder, self.genotypes.plink.ids
        options["pheno"] = write_table(folder / "y.tsv", ids, dict(zip(NAMES, self.Y.T, strict=True)))
        if self.C.size:
            columns = {f"c{j}": column for j, column in enumerate(self.C.T)}
            options["covar"] = write_table(folder / "c.tsv", ids, columns)
        command(bfile=folder / "g", out=folder / out, no_plots=True, threads=1, **options)
        return folder / out

    @functools.lru_cache  # noqa: B019 (a round lives as long as a test module)
    def fits(self, without=None, every=1):
        """The exact fit of each trait, to the SNPs of the chromosome that the kinship lacks, or to all."""
        model = exact.Model(self.genotypes.spectrum(without, every), self.X)
        return [model.fit(y, self.snps(without)) for y in self.Y.T]

    def snps(self, chromosome=None):
        """Centred SNPs (N, m) of a chromosome, or all."""
        return self.genotypes.plink.centred()[:, self.on(chromosome)]

    def on(self, chromosome):
        """Which SNPs are on a chromosome; all for None."""
        return np.ones(M, dtype=bool) if chromosome is None else self.genotypes.plink.chromosomes == chromosome


def written(A, rng, largest):
    """Columns in other units, of either sign, with means of 1 to 10^``largest`` standard deviations."""
    A, k = A / A.std(axis=0), A.shape[1]
    unit = 10.0 ** rng.uniform(-6, 6, k) * rng.choice([-1.0, 1.0], k)
    return unit * (A + 10.0 ** rng.uniform(0, largest, k) * rng.choice([-1.0, 1.0], k))


@pytest.fixture(scope="module")
def rounds(module_comm, module_folder):
    """The rounds of this rank."""
    folder = module_folder / f"of_{module_comm.rank}"
    folder.mkdir()
    mpgls.simulate(out=folder / "g", samples=N, snps=M, chromosomes=CHROMOSOMES, seed=8)
    mpgls.kinship(bfile=folder / "g", out=folder / "K", loco=True)
    mpgls.eigen(grm=folder / "K.h5", out=folder / "E")
    genotypes = Genotypes(folder, read_plink(folder / "g"))
    return [Round.of(genotypes, number) for number in range(module_comm.rank, ROUNDS, module_comm.size)]


def assert_near(found, expected, tolerance, size=0.0, what=""):
    """Equal to a share ``tolerance`` of each number, or of ``size`` where that is larger."""
    expected = np.asarray(expected, dtype=np.float64)
    scale = np.maximum(np.abs(expected), np.asarray(size, dtype=np.float64))
    worst = np.max(np.abs(found - expected) / scale, initial=0.0)
    assert worst <= tolerance, f"{what}: {worst:.2g}"


def assert_fit(table, fit, tolerance, what):
    """BETA relative to the largest one, SE, and LOG10P in units of 1 where it is smaller."""
    assert_near(table["BETA"], fit.beta, tolerance, np.abs(fit.beta).max(), f"{what} BETA")
    assert_near(table["SE"], fit.se, tolerance, what=f"{what} SE")
    assert_near(table["LOG10P"], fit.log10p, tolerance, 1.0, f"{what} LOG10P")


def single_trait(one, kind, **options):
    folder = one.genotypes.folder
    if kind == "low-rank":
        return one.run(mpgls.low_rank, similarity_every=EVERY, form="low-rank", **options)
    given = {"eigen": folder / "E.h5"} if kind == "eigen" else {"grm": folder / "K.h5", "loco": kind == "loco"}
    return one.run(mpgls.single_trait, **given, **options)


@pytest.mark.deadline(240)
@pytest.mark.parametrize("kind", ["grm", "eigen", "loco", "low-rank"])
def test_scans_of_one_trait_after_the_other(comm, rounds, kind):
    for one in rounds:
        prefix, left_out = single_trait(one, kind), kind in ("loco", "low-rank")
        for without in np.unique(one.genotypes.plink.chromosomes) if left_out else [None]:
            for name, fit in zip(NAMES, one.fits(without, EVERY if kind == "low-rank" else 1), strict=True):
                facts, what = read_facts(prefix, name), f"round {one.number} {name} {without or ''}"
                model = facts["loco"][without] if left_out else facts
                assert_near(model["h2"], fit.h2, 5e-9, 1.0, f"{what} h2")
                table = read_results(prefix, name)
                assert_fit(
                    {column: table[column][one.on(without)] for column in ("BETA", "SE", "LOG10P")}, fit, DOUBLE, what
                )
                effects, errors = np.array(list(model["covariates"].values())).T
                assert_near(effects, fit.effects, DOUBLE, errors, f"{what} covariates")


def test_many_traits_at_once(comm, rounds):
    for one in rounds:
        prefix = one.run(mpgls.multi_trait, grm=one.genotypes.folder / "K.h5", p_threshold=1.0)
        hits, traits = read_columns(f"{prefix}.hits.tsv"), read_rows(f"{prefix}.traits.tsv")
        assert len(hits["TRAIT"]) == TRAITS * M
        for j, (row, fit) in enumerate(zip(traits, one.fits(), strict=True)):
            assert_near(float(row["H2"]), fit.h2, DOUBLE, 0.1, f"round {one.number} y{j} h2")
            table = {name: np.array(hits[name][j * M : (j + 1) * M], float) for name in ("BETA", "SE", "LOG10P")}
            assert_fit(table, fit, DOUBLE, f"round {one.number} y{j}")


def vgwas(one, **options):
    """t and beta of every pair (M, TRAITS)."""
    prefix = one.run(mpgls.vgwas, sparsity_threshold=1.0, permutations=0, **options)
    with h5py.File(f"{prefix}.voxels.h5") as file:
        pairs = file["snp"][...], file["voxel"][...]
        found = np.full((2, M, TRAITS), np.nan)
        found[(slice(None), *pairs)] = file["t"][...], file["beta"][...]
    return found


def test_every_snp_against_every_voxel(comm, rounds):
    for one in rounds:
        for j, (t, beta) in enumerate(np.moveaxis(vgwas(one, precision="double"), 2, 0)):
            right_t, right_beta = exact.t_and_effects(one.X, one.Y[:, j], one.snps())
            assert_near(t, right_t, DOUBLE, 1.0, f"round {one.number} y{j} t")
            assert_near(beta, right_beta, 1e-6, np.abs(right_beta).max(), f"round {one.number} y{j} beta")


def ridge(one, **options):
    """R2 of each outer fold, predictions (N, TRAITS) and the folds of the samples."""
    options |= {"alphas": (ALPHA,), "permutations": 0, "outer_folds": 3, "inner_folds": 2, "save_predictions": True}
    prefix = one.run(mpgls.ridge, **options)
    rows, folds = read_rows(f"{prefix}.targets.tsv"), read_rows(f"{prefix}.folds.tsv")
    with h5py.File(f"{prefix}.predictions.h5") as file:
        predicted = file["traits"][...].T
    outer = np.array([int(row["OUTER"]) for row in folds])
    return np.array([[float(row[f"R2_{o}"]) for row in rows] for o in (1, 2, 3)]), predicted, outer


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_predictions(comm, rounds, precision):
    tolerance = {"double": DOUBLE, "mixed": MIXED}[precision]
    for one in rounds:
        X = one.snps().astype(exact.REAL)
        X /= np.sqrt(np.square(X).mean(axis=0))
        r2, predicted, outer = ridge(one, precision=precision)
        for o in (1, 2, 3):
            test, training = np.flatnonzero(outer == o), np.flatnonzero(outer != o)
            right, right_r2 = exact.ridge(one.X, one.Y, X @ X.T / M, test, training, ALPHA)
            assert_near(r2[o - 1], right_r2, tolerance, 1.0, f"round {one.number} R2")
            # a prediction has the digits that its float64 holds
            error = np.abs(predicted[test] - right) - 1e-15 * np.abs(right)
            assert np.all(error <= tolerance * one.Y.std(axis=0)), f"round {one.number} predictions"


@pytest.mark.parametrize("kind", ["grm", "low-rank", "multi-trait", "vgwas"])
def test_mixed_precision(comm, rounds, kind):
    for one in [one for one in rounds if one.number in (3, 6)]:
        if kind == "vgwas":
            right = [exact.t_and_effects(one.X, y, one.snps())[0] for y in one.Y.T]
            assert_near(vgwas(one, precision="mixed")[0].T, right, MIXED, 1.0, f"round {one.number} t")
            continue
        fits, options = one.fits(None, EVERY if kind == "low-rank" else 1), {"precision": "mixed"}
        if kind == "multi-trait":
            prefix = one.run(mpgls.multi_trait, grm=one.genotypes.folder / "K.h5", p_threshold=1.0, **options)
            hits = read_columns(f"{prefix}.hits.tsv")
            tables = [
                {c: np.array(hits[c][j * M : (j + 1) * M], float) for c in hits if c in ("BETA", "SE", "LOG10P")}
                for j in range(TRAITS)
            ]
        else:
            prefix = single_trait(one, kind, **options, **({"no_loco": True} if kind == "low-rank" else {}))
            tables = [read_results(prefix, name) for name in NAMES]
        for name, table, fit in zip(NAMES, tables, fits, strict=True):
            assert_fit(table, fit, MIXED, f"round {one.number} {name}")
