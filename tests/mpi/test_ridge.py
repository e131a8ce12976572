"""``mpgls ridge`` against scikit-learn and the normal equations, on any number of ranks."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from mice import EXAMPLE, needs_mice, unpack_mice
from mpi4py import MPI
from ranks import few_ranks, two_ranks
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_study import (
    SimulatedStudy,
    assert_left_alone,
    read_columns,
    read_facts,
    read_plink,
    read_rows,
    read_table,
    write_lines,
    write_table,
)

import mpgls
from mpgls.commands import ridge
from mpgls.engine.ridge_plan import PenaltyPlan
from mpgls.errors import InputError, MemoryPlanError, Stopped
from mpgls.model.permute import permutation
from mpgls.mpi import StopSignal

N, M, T, P = 127, 89, 5, 37
ALPHAS = (0.02, 0.5, 3.0, 40.0)
OUTER, INNER = 4, 3


@dataclass(frozen=True)
class Files(SimulatedStudy):
    """Simulated files with a few missing genotypes."""

    def Y(self):
        return np.column_stack(list(read_table(self.pheno).values()))

    def standardised(self, rows=slice(None)):
        """SNPs with mean 0 and variance 1 over ``rows``, missing genotypes at the mean, constant ones left out."""
        G = self.plink.dosages
        varies = np.nanstd(G, axis=0) > 0
        G = G[:, varies]
        X = np.where(np.isnan(G), 0.0, G - np.nanmean(G[rows], axis=0))
        sd = np.sqrt((X[rows] ** 2).mean(axis=0))
        return np.divide(X, sd, out=np.zeros_like(X), where=sd > 1e-9)


@pytest.fixture(scope="module")
def files(module_comm, module_folder):
    prefix = str(module_folder / "g")
    small = {"samples": N, "snps": M, "traits": T, "chromosomes": 3, "missing": 0.03, "seed": 5}
    mpgls.simulate(out=prefix, comm=module_comm, **small)
    return Files(module_folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", read_plink(prefix))


def predict(comm, files, out="r", **options):
    """Run the command on the files; returns its prefix."""
    prefix = str(files.folder / out)
    usual = {"alphas": ALPHAS, "permutations": P, "seed": 3, "outer_folds": OUTER, "inner_folds": INNER}
    usual |= {"bfile": files.bfile, "pheno": files.pheno, "no_plots": True, "threads": 1, "checkpoint": 0}
    mpgls.ridge(out=prefix, comm=comm, **usual | options)
    comm.Barrier()
    return prefix


def table(prefix, suffix="targets"):
    """Columns of a table by name, numbers with NaN for NA where they are numbers."""
    columns = {}
    for name, values in read_columns(f"{prefix}.{suffix}.tsv").items():
        try:
            columns[name] = np.array([np.nan if value == "NA" else float(value) for value in values])
        except ValueError:
            columns[name] = values
    return columns


def assert_same_tables(prefix, other, *more):
    """The same bytes in the tables of targets and of the null, and ``more``."""
    for suffix in ("targets", "null", *more):
        assert Path(f"{prefix}.{suffix}.tsv").read_bytes() == Path(f"{other}.{suffix}.tsv").read_bytes()


def by_fold(columns, name, count=OUTER):
    return np.array([columns[f"{name}_{o + 1}"] for o in range(count)])


def folds_of(prefix):
    """(test, training, [(inner test, inner training)]) of each outer fold, from PREFIX.folds.tsv."""
    columns = {name: values for name, values in table(prefix, "folds").items() if name not in ("FID", "IID")}
    outer = columns.pop("OUTER")
    found = []
    for o, inner in enumerate(columns.values(), 1):
        pairs = [
            (np.flatnonzero(inner == i), np.flatnonzero((inner != i) & (outer != o)))
            for i in np.unique(inner[outer != o])
        ]
        found.append((np.flatnonzero(outer == o), np.flatnonzero(outer != o), pairs))
    return found


def searched(X, Y, folds, penalties, model=None, name="alpha"):
    """R2 (outer, t), penalties and predictions by scikit-learn's nested grid search over the same folds."""
    r2, chosen = np.empty((2, len(folds), Y.shape[1]))
    predicted = np.empty_like(Y)
    for o, (test, training, inner) in enumerate(folds):
        cv = [(np.searchsorted(training, train), np.searchsorted(training, held)) for held, train in inner]
        for j in range(Y.shape[1]):
            search = GridSearchCV(model or SklearnRidge(), {name: penalties}, scoring="r2", cv=cv)
            search.fit(X[training], Y[training, j])
            predicted[test, j] = search.predict(X[test])
            r2[o, j] = r2_score(Y[test, j], predicted[test, j])
            chosen[o, j] = search.best_params_[name]
    return r2, chosen, predicted


def left_by_covariates(C, X, Y, folds, penalties):
    """R2 (outer, t) with unpenalised C, from the normal equations of [C | X] and least squares on C."""
    A = np.column_stack([C, X])
    weights = np.array([0.0] * C.shape[1] + [1.0] * X.shape[1])

    def r2_of(test, training, alpha):
        fitted = A[test] @ np.linalg.solve(
            A[training].T @ A[training] + np.diag(alpha * weights), A[training].T @ Y[training]
        )
        base = C[test] @ np.linalg.lstsq(C[training], Y[training], rcond=None)[0]
        return r2_score(Y[test] - base, fitted - base, multioutput="raw_values")

    r2 = np.empty((len(folds), Y.shape[1]))
    for o, (test, training, inner) in enumerate(folds):
        scores = np.array(
            [np.mean([r2_of(held, train, alpha) for held, train in inner], axis=0) for alpha in penalties]
        )
        whole = np.array([r2_of(test, training, alpha) for alpha in penalties])
        r2[o] = np.take_along_axis(whole, scores.argmax(axis=0)[None], axis=0)[0]
    return r2


@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-9), ("mixed", 1e-4)])
def test_nested_cross_validation_predictions_and_weights(comm, files, precision, tolerance):
    prefix = predict(comm, files, precision=precision, save_predictions=True, weights=2, permutations=3)
    if comm.rank > 0:
        return
    X, Y, columns = files.standardised(), files.Y(), table(prefix)
    m = read_facts(prefix)["snps"]
    r2, chosen, predicted = searched(X, Y, folds_of(prefix), [alpha * m for alpha in ALPHAS])
    np.testing.assert_allclose(by_fold(columns, "ALPHA") * m, chosen)
    np.testing.assert_allclose(by_fold(columns, "R2"), r2, rtol=0, atol=tolerance)
    np.testing.assert_allclose(columns["R2"], r2.mean(axis=0), rtol=0, atol=tolerance)
    expected = [
        np.mean([np.corrcoef(Y[test, j], predicted[test, j])[0, 1] for test, _, _ in folds_of(prefix)])
        for j in range(T)
    ]
    np.testing.assert_allclose(columns["R"], expected, rtol=0, atol=tolerance)
    with h5py.File(f"{prefix}.predictions.h5") as file:
        np.testing.assert_allclose(file["traits"][...].T, predicted, rtol=0, atol=tolerance * Y.std())
    weights = table(prefix, "weights")
    best = [columns["TARGET"][j] for j in np.argsort(-columns["R2"])[:2]]
    cv = [(training, test) for test, training, _ in folds_of(prefix)]
    varies = np.nanstd(files.plink.dosages, axis=0) > 0
    G = files.plink.dosages[:, varies]
    sd = np.sqrt((np.where(np.isnan(G), 0.0, G - np.nanmean(G, axis=0)) ** 2).mean(axis=0))
    for name in best:
        y = read_table(files.pheno)[name]
        search = GridSearchCV(SklearnRidge(), {"alpha": [alpha * m for alpha in ALPHAS]}, scoring="r2", cv=cv).fit(X, y)
        np.testing.assert_allclose(weights[name] * sd, search.best_estimator_.coef_, rtol=0, atol=1e-9)


@few_ranks
def test_covariates_are_fitted_in_every_training_set(comm, files):
    prefix = predict(comm, files, covar=files.covar, permutations=0)
    if comm.rank == 0:
        C = files.design()
        m = read_facts(prefix)["snps"]
        r2 = left_by_covariates(C, files.standardised(), files.Y(), folds_of(prefix), [alpha * m for alpha in ALPHAS])
        np.testing.assert_allclose(by_fold(table(prefix), "R2"), r2, rtol=0, atol=1e-9)


@few_ranks
def test_snps_standardised_over_each_training_set(comm, files):
    prefix = predict(comm, files, standardize="fold", permutations=0, outer_folds=3, inner_folds=2)
    if comm.rank > 0:
        return
    m = read_facts(prefix)["snps"]
    G = files.plink.dosages
    G = G[:, np.nanstd(G, axis=0) > 0]
    r2 = np.empty((3, T))
    Y, columns = files.Y(), table(prefix)
    for o, (test, training, inner) in enumerate(folds_of(prefix)):
        scores = np.empty((len(ALPHAS), T))
        for a, alpha in enumerate(ALPHAS):
            found = []
            for held, train in inner:
                X = files.standardised(train)
                found.append(
                    r2_score(
                        Y[held],
                        SklearnRidge(alpha * m).fit(X[train], Y[train]).predict(X[held]),
                        multioutput="raw_values",
                    )
                )
            scores[a] = np.mean(found, axis=0)
        X = files.standardised(training)
        for j in range(T):
            model = SklearnRidge(ALPHAS[scores[:, j].argmax()] * m).fit(X[training], Y[training, j])
            r2[o, j] = r2_score(Y[test, j], model.predict(X[test]))
    np.testing.assert_allclose(by_fold(columns, "R2", 3), r2, rtol=0, atol=1e-9)


@few_ranks
def test_fold_standardisation_is_scikit_learns_pipeline(comm, files):
    """Without missing genotypes the training set's statistics are those of StandardScaler."""
    prefix = str(files.folder / "whole")
    mpgls.simulate(samples=67, snps=41, out=prefix, traits=2, seed=8, comm=comm)
    whole = dataclasses.replace(files, bfile=prefix, pheno=f"{prefix}.pheno.tsv", plink=read_plink(prefix))
    out = predict(comm, whole, "w", standardize="fold", permutations=0, outer_folds=3, inner_folds=2)
    if comm.rank == 0:
        m = read_facts(out)["snps"]
        model = make_pipeline(StandardScaler(), SklearnRidge())
        penalties = [alpha * m for alpha in ALPHAS]
        r2, chosen, _ = searched(whole.plink.dosages, whole.Y(), folds_of(out), penalties, model, "ridge__alpha")
        np.testing.assert_allclose(by_fold(table(out), "R2", 3), r2, rtol=0, atol=1e-9)
        np.testing.assert_allclose(by_fold(table(out), "ALPHA", 3) * m, chosen)


@pytest.mark.parametrize("blocks", [False, True])
def test_a_permutation_is_the_whole_nested_loop_on_permuted_residuals(comm, files, blocks):
    """Freedman and Lane: residuals on the covariates are permuted, then everything is done again."""
    labels = np.arange(N) % 2
    options = {}
    if blocks:
        options["blocks"] = str(files.folder / "blocks.txt")
        if comm.rank == 0:
            ids = files.plink.ids
            write_lines(
                options["blocks"], ["FID IID SITE", *(f"{f} {i} s{k}" for (f, i), k in zip(ids, labels, strict=True))]
            )
        comm.Barrier()
    prefix = predict(comm, files, covar=files.covar, permutations=7, **options)
    if comm.rank == 0:
        C = files.design()
        Y, X, m = files.Y(), files.standardised(), read_facts(prefix)["snps"]
        residuals = Y - C @ np.linalg.lstsq(C, Y, rcond=None)[0]
        null, observed = [], table(prefix)["R2"]
        for k in range(1, 8):
            order = permutation(3, k, N, labels if blocks else None)
            r2 = left_by_covariates(C, X, residuals[order], folds_of(prefix), [alpha * m for alpha in ALPHAS])
            null.append(r2.mean(axis=0))
        null = np.array(null)
        np.testing.assert_allclose(table(prefix, "null")["MAX_R2"], null.max(axis=1), rtol=0, atol=1e-9)
        np.testing.assert_allclose(table(prefix)["P"], (1 + (null >= observed).sum(axis=0)) / 8)
        np.testing.assert_allclose(
            table(prefix)["P_FWE"], (1 + (null.max(axis=1)[:, None] >= observed).sum(axis=0)) / 8
        )


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_any_number_of_ranks_gives_the_same_bits(comm, files, precision):
    prefix = predict(comm, files, "many", precision=precision)
    if comm.rank == 0:
        alone = predict(MPI.COMM_SELF, files, "alone", precision=precision)
        assert_same_tables(prefix, alone, "folds")


@pytest.mark.parametrize("standardize", ["all", "fold"])
def test_a_rank_on_each_node_gives_the_same_bits(comm, files, monkeypatch, standardize):
    """Nothing but the kernel, the targets and what tiles found travels between nodes."""
    options = {"standardize": standardize, "permutations": 9, "outer_folds": 3, "inner_folds": 2}
    together = predict(comm, files, "one_node", **options)
    monkeypatch.setattr(ridge, "split_node", lambda world: world.Split(world.rank))
    apart = predict(comm, files, "many_nodes", **options)
    if comm.rank == 0:
        assert_same_tables(together, apart)


def in_turn(monkeypatch, groups):
    """A plan that holds the operators of these ranges of penalties one after the other."""
    monkeypatch.setattr(ridge, "plan_penalties", lambda *_: PenaltyPlan({"operators": 0}, groups))


class StopAfter:
    """A run that is asked to stop when it has looked ``looks`` times, after the look that every run begins with."""

    def __init__(self, monkeypatch, looks):
        self.left = looks + 1
        monkeypatch.setattr(StopSignal, "problem", lambda signal, *_: self.problem())

    def problem(self):
        self.left -= 1
        return Stopped("stopped by the test") if self.left < 0 else None


@pytest.fixture
def narrow_tiles(monkeypatch):
    """Several tiles of permutations, so that there is something to interrupt."""
    monkeypatch.setattr("mpgls.engine.permutation_tiles.WIDTH", 10)


@pytest.mark.parametrize("later", [0, 3])
@pytest.mark.parametrize("several_groups", [False, True])
def test_an_interrupted_run_gives_the_same_bits(comm, files, monkeypatch, narrow_tiles, later, several_groups):
    """With several groups of penalties the second is being built, or its tiles are being scored."""
    rounds = -(-20 // comm.size)
    looks = (4 + rounds if several_groups else 11) + later
    if several_groups:
        in_turn(monkeypatch, [range(0, 1), range(1, 3), range(3, 4)])
    whole = predict(comm, files, "whole_run")
    with monkeypatch.context() as patch:
        StopAfter(patch, looks)
        with pytest.raises(Stopped):
            predict(comm, files, "stopped")
    comm.Barrier()
    assert Path(f"{files.folder}/stopped.progress").exists()
    comm.Barrier()
    prefix = predict(comm, files, "stopped", resume=True)
    if comm.rank == 0:
        assert "resume:" in Path(f"{prefix}.log").read_text()
        assert_same_tables(prefix, whole)
        assert not Path(f"{prefix}.progress").exists()


@few_ranks
def test_interrupted_twice_with_penalties_in_turn(comm, files, monkeypatch, narrow_tiles):
    """What waited when the first run was stopped is on every rank of the second: only its owner's copy is kept."""
    in_turn(monkeypatch, [range(0, 1), range(1, 2), range(2, 4)])
    whole = predict(comm, files, "whole_run")
    rounds = -(-20 // comm.size)
    group = 2 + rounds - 1
    for resume in (False, True):
        with monkeypatch.context() as patch:
            StopAfter(patch, 1 + group)
            with pytest.raises(Stopped):
                predict(comm, files, "twice", resume=resume)
        comm.Barrier()
    begun = "resume: 0 tiles are done, 20 begun"
    prefix = predict(comm, files, "twice", resume=True)
    if comm.rank == 0:
        assert Path(f"{prefix}.log").read_text().count(begun) == 2
        assert_same_tables(prefix, whole)


def test_penalties_in_turn_give_the_same_bits(comm, files, monkeypatch):
    together = predict(comm, files, "together", save_predictions=True)
    in_turn(monkeypatch, [range(0, 3), range(3, 4)])
    apart = predict(comm, files, "in_turn", save_predictions=True)
    if comm.rank == 0:
        assert_same_tables(together, apart)
        with h5py.File(f"{together}.predictions.h5") as a, h5py.File(f"{apart}.predictions.h5") as b:
            np.testing.assert_array_equal(a["traits"][...], b["traits"][...])


def test_targets_in_panels_and_permutations_side_by_side(comm, files, monkeypatch):
    """A tile of one permutation's targets in two panels finds what a tile of many permutations finds."""
    wide = predict(comm, files, "wide")
    monkeypatch.setattr("mpgls.engine.permutation_tiles.WIDTH", 3)
    narrow = predict(comm, files, "narrow")
    if comm.rank == 0:
        for name in ("R2", "P", "P_FWE"):
            np.testing.assert_allclose(table(wide)[name], table(narrow)[name], atol=1e-12)
        np.testing.assert_allclose(table(wide, "null")["MAX_R2"], table(narrow, "null")["MAX_R2"], atol=1e-12)


@few_ranks
def test_a_penalty_for_all_targets(comm, files):
    prefix = predict(comm, files, alpha_choice="shared", permutations=2)
    if comm.rank == 0:
        alphas = by_fold(table(prefix), "ALPHA")
        assert (alphas == alphas[:, :1]).all()


@few_ranks
def test_folds_of_a_file_and_the_kinship_of_a_file(comm, files):
    first = predict(comm, files, permutations=2)
    mpgls.kinship(bfile=files.bfile, method="standardized", out=files.folder / "K", threads=1, comm=comm)
    folds = str(files.folder / "kept.tsv")
    if comm.rank == 0:
        shutil.copy(f"{first}.folds.tsv", folds)
    comm.Barrier()
    again = predict(comm, files, "again", permutations=2, folds_file=folds, grm=files.folder / "K.h5", seed=3)
    if comm.rank == 0:
        for name in ("R2", "ALPHA_1", "ALPHA_4", "R2_3"):
            np.testing.assert_allclose(table(again)[name], table(first)[name], atol=1e-9)
        np.testing.assert_allclose(table(again, "null")["MAX_R2"], table(first, "null")["MAX_R2"], atol=1e-9)


@few_ranks
def test_missing_constant_and_explained_targets(comm, files):
    pheno = str(files.folder / "odd.tsv")
    if comm.rank == 0:
        columns = read_table(files.pheno)
        y, covar = columns["trait1"].copy(), next(iter(read_table(files.covar).values()))
        y[[3, 50]] = np.nan
        rare = np.zeros(N)
        rare[20] = 1.0
        write_table(pheno, files.plink.ids, {"y": y, "flat": np.ones(N), "rare": rare, "covar": 2.0 * covar - 1.0})
    comm.Barrier()
    prefix = predict(comm, files, pheno=pheno, covar=files.covar)
    if comm.rank > 0:
        return
    columns = table(prefix)
    assert columns["TARGET"] == ["y", "flat", "rare", "covar"] and (columns["N"] == N - 2).all()
    assert columns["FLAGS"][1] == "constant" and columns["FLAGS"][3] == "collinear with covariates"
    assert np.isnan(columns["R2"][[1, 3]]).all() and np.isnan(columns["P"][[1, 3]]).all()
    assert np.isfinite(columns["R2"][[0, 2]]).all()


@few_ranks
def test_a_fold_in_which_a_target_is_constant(comm, files):
    pheno = str(files.folder / "rare.tsv")
    if comm.rank == 0:
        rare = np.zeros(N)
        rare[[20, 21]] = 1.0
        write_table(pheno, files.plink.ids, {"y": read_table(files.pheno)["trait1"], "rare": rare})
    comm.Barrier()
    prefix = predict(comm, files, pheno=pheno)
    if comm.rank == 0:
        columns = table(prefix)
        constant = np.isnan(by_fold(columns, "R2"))[:, 1]
        assert constant.sum() >= 2 and columns["FLAGS"][0] == "NA"
        assert columns["FLAGS"][1] == "constant in fold " + ",".join(str(o + 1) for o in np.flatnonzero(constant))
        r2 = np.nan_to_num(by_fold(columns, "R2"))[:, 1]
        np.testing.assert_allclose(columns["R2"][1], r2.mean())


@few_ranks
def test_a_planted_signal_is_found_and_noise_is_not(comm, files):
    pheno = str(files.folder / "planted.tsv")
    if comm.rank == 0:
        rng = np.random.default_rng(4)
        X = files.standardised()
        signal = X @ rng.standard_normal(X.shape[1])
        columns = {f"noise{k}": rng.standard_normal(N) for k in range(6)}
        columns["planted"] = signal / signal.std() + 0.5 * rng.standard_normal(N)
        write_table(pheno, files.plink.ids, columns)
    comm.Barrier()
    prefix = predict(comm, files, pheno=pheno, permutations=199)
    if comm.rank == 0:
        columns = table(prefix)
        assert columns["P_FWE"][-1] == 1 / 200 and columns["P"][-1] == 1 / 200
        assert (columns["P_FWE"][:-1] > 0.02).all()


@few_ranks
def test_too_little_memory_is_refused_with_what_would_fit(comm, files):
    with pytest.raises(MemoryPlanError, match=r"--memory allows 0\.00"):
        predict(comm, files, memory=0.001)


@few_ranks
def test_a_run_with_other_options_does_not_resume(comm, files, monkeypatch, narrow_tiles):
    with monkeypatch.context() as patch:
        StopAfter(patch, 14)
        with pytest.raises(Stopped):
            predict(comm, files, "other")
    comm.Barrier()
    with pytest.raises(InputError, match="--alpha-choice was not given, now it is shared"):
        predict(comm, files, "other", resume=True, alpha_choice="shared")
    with pytest.raises(InputError, match="--groups was not given, now it is fid"):
        predict(comm, files, "other", resume=True, groups="fid")


@few_ranks
def test_a_complete_run_is_not_done_again(comm, files):
    prefix = predict(comm, files, "complete")
    assert_left_alone(prefix, lambda: predict(comm, files, "complete", resume=True))
    comm.Barrier()
    with pytest.raises(InputError, match="--weights was not given, now it is 1"):
        predict(comm, files, "complete", resume=True, weights=1)


@two_ranks
@needs_mice
def test_two_traits_of_mice(comm, files):
    prefix, keep, pheno = (str(files.folder / name) for name in ("mouse_hs1940", "keep.txt", "mice.tsv"))
    if comm.rank == 0:
        unpack_mice(prefix)
        text = gzip.decompress((EXAMPLE / "mouse_hs1940.pheno.txt.gz").read_bytes()).decode()
        values = np.array([[np.nan if v == "NA" else float(v) for v in line.split()] for line in text.splitlines()])
        ids = read_plink(prefix).ids
        write_table(pheno, ids, {"CD8": values[:, 0], "MCH": values[:, 5]})
        write_lines(keep, ids[::5])
    comm.Barrier()
    of_mice = dataclasses.replace(files, bfile=prefix)
    few = {"pheno": pheno, "keep": keep, "chr": "1,17", "maf": 0.01, "outer_folds": 3, "inner_folds": 2}
    for precision, tolerance in (("double", 1e-8), ("mixed", 1e-4)):
        out = predict(comm, of_mice, "mice", precision=precision, permutations=2, seed=1, **few)
        if comm.rank == 0:
            plink = read_plink(prefix)
            analysed = [(row["FID"], row["IID"]) for row in read_rows(f"{out}.folds.tsv")]
            rows = np.array([plink.ids.index(name) for name in analysed])
            frequency = plink.frequency(rows)
            selected = np.isin(plink.chromosomes, ["1", "17"]) & (np.minimum(frequency, 1 - frequency) >= 0.01)
            dosages = plink.dosages[np.ix_(rows, selected)]
            mice = dataclasses.replace(files, plink=dataclasses.replace(plink, dosages=dosages))
            X, Y = mice.standardised(), np.column_stack(list(read_table(pheno).values()))[rows]
            m = read_facts(out)["snps"]
            assert X.shape[1] == m and rows.size > 200
            r2, chosen, _ = searched(X, Y, folds_of(out), [alpha * m for alpha in ALPHAS])
            np.testing.assert_allclose(by_fold(table(out), "R2", 3), r2, rtol=0, atol=tolerance)
            np.testing.assert_allclose(by_fold(table(out), "ALPHA", 3) * m, chosen)
            assert table(out)["R2"].max() > 0.05
        comm.Barrier()


def voxel_matrix(files, path, shape=(4, 3, 3)):
    """A voxel matrix by h5py alone: two halves of the grid, each with a signal of its own; people in another order."""
    rng = np.random.default_rng(12)
    order = rng.permutation(N)
    coordinates = np.argwhere(np.ones(shape))
    X = files.standardised()
    signals = np.column_stack([X[:, :20].sum(axis=1), rng.standard_normal(N)])
    signals /= signals.std(axis=0)
    values = signals[:, coordinates[:, 0] // 2] + 0.3 * rng.standard_normal((N, len(coordinates)))
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "mpgls-voxels", "version": 1, "shape": shape, "affine": np.eye(4), "mask": "m"})
        file.create_dataset("voxels", data=values[order].astype("<f4"))
        file.create_dataset("samples", data=[list(files.plink.ids[k]) for k in order], dtype=h5py.string_dtype())
        file.create_dataset("coordinates", data=coordinates.astype(np.int32))
    return values


@few_ranks
def test_parcels_as_targets(comm, files):
    import nibabel

    voxels = str(files.folder / "voxels.h5")
    if comm.rank == 0:
        voxel_matrix(files, voxels)
    comm.Barrier()
    out = predict(comm, files, "parcels", pheno=None, parcels=2, voxels=voxels, permutations=19, seed=1)
    prefix = predict(comm, files, "means", pheno=f"{out}.parcels.h5", permutations=19, seed=1)
    if comm.rank == 0:
        found, again = table(out), table(prefix)
        assert found["TARGET"] == ["parcel1", "parcel2"]
        np.testing.assert_array_equal(found["R2"], again["R2"])
        assert found["R2"][0] > 0.2 and found["P"][0] == 0.05 and found["R2"][1] < 0.1
        parcels = nibabel.load(f"{out}.parcels.nii.gz").get_fdata()
        np.testing.assert_array_equal(parcels[:2], 1.0)
        np.testing.assert_array_equal(parcels[2:], 2.0)
        r2 = nibabel.load(f"{out}.r2.nii.gz").get_fdata()
        np.testing.assert_allclose(r2[[0, 3], 0, 0], found["R2"], rtol=1e-6)


@few_ranks
def test_parcels_of_images(comm, files):
    """The same from one image a person and a mask."""
    import nibabel

    folder = files.folder / "images"
    listed, mask = str(folder / "list.tsv"), str(folder / "mask.nii.gz")
    if comm.rank == 0:
        folder.mkdir()
        values = voxel_matrix(files, folder / "expected.h5")
        lines = ["FID IID PATH"]
        for (fid, iid), row in zip(files.plink.ids, values, strict=True):
            path = folder / f"{fid}_{iid}.nii"
            nibabel.save(nibabel.Nifti1Image(row.reshape(4, 3, 3).astype(np.float32), np.eye(4)), path)
            lines.append(f"{fid} {iid} {path}")
        write_lines(listed, lines)
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 3, 3), dtype=np.uint8), np.eye(4)), mask)
    comm.Barrier()
    found = []
    few = {"pheno": None, "parcels": 3, "permutations": 0, "outer_folds": 3, "inner_folds": 2, "no_plots": False}
    for name, image in (("i", {"images": listed, "mask": mask}), ("v", {"voxels": folder / "expected.h5"})):
        out = predict(comm, files, f"images/{name}", **few, **image)
        found.append(table(out)["R2"])
        assert Path(f"{out}.alphas.png").exists() and Path(f"{out}.null.png").exists()
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
