"""Categories, names, formats and scales of tables in every command that reads them, on any number of ranks.

A run with them must give the tables of a run whose columns this test made as numbers, by NumPy and SciPy.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from ranks import few_ranks
from scipy import stats
from small_study import SimulatedStudy, on_root, read_facts, read_plink, read_rows, write_kinship, write_table

import mpgls
from mpgls.errors import InputError

pytestmark = few_ranks

N, M = 101, 63
TRAITS = ("t1", "t2", "t3")
SITES = ("north", "south", "east", "west")
COMMANDS = ("single_trait", "low_rank", "multi_trait", "ridge", "vgwas")


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """``columns`` are the covariates as numbers: age, and the indicators of site and batch; ``Y`` (3, n) the traits."""

    grm: str
    Phi: np.ndarray
    columns: dict[str, np.ndarray]
    Y: np.ndarray


def indicators(name: str, labels: np.ndarray) -> dict[str, np.ndarray]:
    """NAME=LEVEL for all levels but the largest."""
    levels, counts = np.unique(labels, return_counts=True)
    return {f"{name}={level}": (labels == level) * 1.0 for level in levels if level != levels[counts.argmax()]}


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    folder, prefix = module_folder, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, chromosomes=3, missing=0.04, seed=3, out=prefix, comm=module_comm)
    rng, plink = np.random.default_rng(8), read_plink(prefix)
    X = plink.centred()
    Phi, grm = X @ X.T / M, str(folder / "K.h5")
    site, batch = rng.choice(SITES, N, p=(0.2, 0.4, 0.2, 0.2)), rng.integers(1, 4, N)
    age, noise = rng.normal(50, 9, N), rng.normal(size=N)
    Y = np.round(rng.gamma(2.0, 3.0, (3, N)) + (site == "east") + X[:, :3].T, 1)  # skewed, and with ties
    columns = {"age": age, **indicators("site", site), **indicators("batch", batch)}

    def write():
        write_kinship(grm, plink.ids, Phi)
        write_table(folder / "made.tsv", plink.ids, columns)
        write_table(folder / "t.tsv", plink.ids, dict(zip(TRAITS, Y, strict=True)))
        rows = zip(plink.ids, age, site, noise, batch, strict=True)
        lines = [[*one, repr(float(a)), s, repr(float(e)), str(b)] for one, a, s, e, b in rows]
        for name, between in (("words.tsv", "\t"), ("words.csv", ",")):
            text = [between.join(line) for line in [["FID", "IID", "age", "site", "noise", "batch"], *lines]]
            (folder / name).write_text("\n".join(text) + "\n")
        with h5py.File(folder / "t.h5", "w") as file:
            file["traits"] = Y
            for name, texts in (("names", TRAITS), ("samples", [" ".join(one) for one in plink.ids])):
                file.create_dataset(name, data=list(texts), dtype=h5py.string_dtype())
        write_parquet(folder, plink.ids, {"age": age, "site": site, "noise": noise, "batch": batch}, Y)

    on_root(module_comm, write)
    return Study(folder, prefix, str(folder / "t.tsv"), str(folder / "made.tsv"), plink, grm, Phi, columns, Y)


def write_parquet(folder: Path, ids, covariates, Y) -> None:
    """words.parquet and t.parquet, where there is pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return
    who = dict(zip(("FID", "IID"), map(list, zip(*ids, strict=True)), strict=True))
    for name, columns in (("words", covariates), ("t", dict(zip(TRAITS, Y, strict=True)))):
        parquet.write_table(pyarrow.table(who | {k: list(v) for k, v in columns.items()}), folder / f"{name}.parquet")


def tables(comm, study, command, out, **options):
    """Run the command; returns its tables (rank 0), by their ending."""
    prefix = study.folder / out / "o"
    usual = {"bfile": study.bfile, "pheno": study.pheno, "no_plots": True, "threads": 1}
    usual |= {
        "single_trait": {"grm": study.grm},
        "multi_trait": {"grm": study.grm, "p_threshold": 1.0},
        "low_rank": {"similarity_every": 2},
        "ridge": {"permutations": 5, "outer_folds": 3, "inner_folds": 3, "weights": 1},
        "vgwas": {"permutations": 5, "sparsity_threshold": 0.5, "precision": "double"},
    }[command]
    on_root(comm, lambda: (shutil.rmtree(prefix.parent, ignore_errors=True), prefix.parent.mkdir()))
    getattr(mpgls, command)(out=prefix, comm=comm, **usual | options)
    comm.Barrier()
    if comm.rank:
        return None
    return {path.name.removeprefix(prefix.name): read_rows(path) for path in sorted(prefix.parent.glob("*.tsv"))}


def assert_same(found, expected):
    """The same texts, and numbers to a relative 1e-8."""
    assert found is None or (found.keys() == expected.keys() and found)
    for name in found or ():
        assert len(found[name]) == len(expected[name]) > 0
        for row, wanted in zip(found[name], expected[name], strict=True):
            for key in wanted:
                try:
                    value = float(wanted[key])
                except ValueError:
                    assert row[key] == wanted[key], (name, key)
                else:
                    assert float(row[key]) == pytest.approx(value, rel=1e-8, abs=1e-8, nan_ok=True), (name, key)


def log_of(study, out):
    return (study.folder / out / "o.log").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_words_are_indicators(comm, study, command):
    expected = tables(comm, study, command, "made", covar=study.covar)
    given = {"covar": study.folder / "words.tsv", "covar_name": ("age-site", "b?tch"), "cat_covar": "batch"}
    assert_same(tables(comm, study, command, "words", **given), expected)
    if comm.rank == 0:
        log = log_of(study, "words")
        assert "intercept, age, site=east, site=north, site=west, batch=" in log
        counts = {name: int(column.sum()) for name, column in study.columns.items()}
        base = N - sum(counts[f"site={site}"] for site in ("east", "north", "west"))
        assert f"site: a category of 4 levels; the base is south ({base} samples), with indicators of east (" in log


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("command", COMMANDS)
def test_formats(comm, study, command, form):
    if form == "parquet":
        pytest.importorskip("pyarrow")
    expected = tables(comm, study, command, "made", covar=study.covar, pheno_name=("t1", "t3"))
    covar = {"covar": study.folder / f"words.{form}", "covar_name": ("age", "site", "batch"), "cat_covar": "b*"}
    pheno = study.folder / ("t.h5" if form == "csv" else "t.parquet")
    found = tables(comm, study, command, form, pheno=pheno, pheno_name="t{1:1},t3", **covar)
    assert_same(found, expected)


def test_effects_are_those_of_the_indicators(comm, study):
    """Generalised least squares of the null model, by the oracle, at the h2 that was found."""
    given = {"covar": study.folder / "words.tsv", "covar_name": ("site", "age"), "pheno_name": "t2"}
    tables(comm, study, "single_trait", "words", **given)
    if comm.rank:
        return
    facts, names = read_facts(study.folder / "words" / "o", "t2"), ["site=east", "site=north", "site=west", "age"]
    X = np.column_stack([np.ones(N), *(study.columns[name] for name in names)])
    beta, _, _ = oracle.gls(X, study.Y[1], oracle.covariance(facts["h2"], oracle.scaled(study.Phi)))
    assert list(facts["covariates"]) == ["intercept", *names]
    np.testing.assert_allclose([value for value, _ in facts["covariates"].values()], beta, rtol=1e-8)


def blom(y):
    return stats.norm.ppf((stats.rankdata(y) - 0.375) / (y.size + 0.25))


def left_of(study):
    """What the covariates leave of the traits; rounded, so that ties stay ties."""
    X = np.column_stack([np.ones(N), *study.columns.values()])
    return np.round(study.Y - (X @ np.linalg.lstsq(X, study.Y.T, rcond=None)[0]).T, 9)


@pytest.mark.parametrize("rint", ["direct", "residual"])
@pytest.mark.parametrize("command", COMMANDS)
def test_normal_scores(comm, study, command, rint):
    by_hand = str(study.folder / "scores.tsv")
    scores = [blom(y) for y in (study.Y if rint == "direct" else left_of(study))]
    on_root(comm, lambda: write_table(by_hand, study.plink.ids, dict(zip(TRAITS, scores, strict=True))))
    expected = tables(comm, study, command, "made", covar=study.covar, pheno=by_hand)
    assert_same(tables(comm, study, command, "rint", covar=study.covar, rint=rint), expected)
    if comm.rank == 0:
        assert "normal scores of " in log_of(study, "rint")


@pytest.mark.parametrize("command", ["single_trait", "low_rank", "multi_trait"])
def test_standard_deviations(comm, study, command):
    by_hand = str(study.folder / "z.tsv")
    z = dict(zip(TRAITS, stats.zscore(study.Y, axis=1, ddof=1), strict=True))
    on_root(comm, lambda: write_table(by_hand, study.plink.ids, z))
    expected = tables(comm, study, command, "made", pheno=by_hand)
    assert_same(tables(comm, study, command, "sd", standardize=True), expected)


@pytest.mark.parametrize("command", ["single_trait", "low_rank", "multi_trait"])
def test_scores_and_indicators_are_of_the_samples_that_a_trait_has(comm, study, command):
    """Each trait misses others, so that the largest site is another one and one site has nobody."""
    gaps, names = str(study.folder / "gaps.tsv"), [name for name in study.columns if name.startswith("site=")]
    south = sum(study.columns[name] for name in names) == 0
    missing = {"t1": south & (np.arange(N) % 4 > 0), "t2": study.columns["site=west"] == 1}
    Y = {name: np.where(gone, np.nan, y) for (name, gone), y in zip(missing.items(), study.Y, strict=False)}
    on_root(comm, lambda: write_table(gaps, study.plink.ids, Y))
    words = {"covar": study.folder / "words.tsv", "covar_name": "site", "pheno": gaps, "rint": "direct"}
    found = tables(comm, study, command, "gaps", **words)
    for name, gone in missing.items():
        made, kept = str(study.folder / "one.tsv"), ~gone
        y = np.full(N, np.nan)
        y[kept] = blom(Y[name][kept])
        columns = {k: study.columns[k] for k in names if study.columns[k][kept].any()}
        on_root(comm, lambda made=made, y=y, name=name: write_table(made, study.plink.ids, {name: y}))
        on_root(comm, lambda columns=columns: write_table(study.folder / "some.tsv", study.plink.ids, columns))
        expected = tables(comm, study, command, "one", pheno=made, covar=study.folder / "some.tsv")
        if comm.rank == 0:
            for ending, rows in expected.items():
                mine = [row for row in found[ending] if row.get("TRAIT", name) == name]
                assert_same({ending: mine}, {ending: rows})


def test_a_trait_whose_residuals_are_rounding_is_refused(comm, study):
    """All ranks say it: what is left of the trait has no ranks."""
    sums = str(study.folder / "sums.tsv")
    trait = 0.1 * study.columns["age"] + study.columns["site=east"]
    on_root(comm, lambda: write_table(sums, study.plink.ids, {"sum": trait}))
    with pytest.raises(InputError, match="'sum' is explained entirely by the covariates"):
        tables(comm, study, "single_trait", "sums", pheno=sums, covar=study.covar, rint="residual")


def test_blocks_of_words(comm, study):
    """Blocks by the words of a site, which is then no covariate, are those by the number of the site."""
    plain, numbers = {"permutations": 9, "sparsity_threshold": 0.5}, str(study.folder / "numbers.tsv")
    code = sum(k * study.columns[f"site={name}"] for k, name in ((1, "north"), (3, "west")))
    code += 2 * (1 - sum(study.columns[f"site={name}"] for name in ("east", "north", "west")))
    on_root(comm, lambda: write_table(numbers, study.plink.ids, {"age": study.columns["age"], "place": code}))
    expected = tables(comm, study, "vgwas", "made", covar=numbers, blocks="place", **plain)
    given = {"covar": study.folder / "words.tsv", "covar_name": ("age", "site"), "blocks": "site"}
    assert_same(tables(comm, study, "vgwas", "words", **given, **plain), expected)
    if comm.rank == 0:
        assert "confounds: intercept, age\n" in log_of(study, "words")
        assert "exchangeability blocks: 4" in log_of(study, "words")


def test_of_many_traits_it_is_flagged(comm, study):
    sums = str(study.folder / "sums.tsv")
    traits = {"sum": 0.1 * study.columns["age"] + study.columns["site=east"], "t1": study.Y[0]}
    on_root(comm, lambda: write_table(sums, study.plink.ids, traits))
    found = tables(comm, study, "multi_trait", "sums", pheno=sums, covar=study.covar, rint="residual")
    if comm.rank == 0:
        assert ["collinear" in row["FLAGS"] for row in found[".traits.tsv"]] == [True, False]
        assert {row["TRAIT"] for row in found[".hits.tsv"]} == {"t1"}
