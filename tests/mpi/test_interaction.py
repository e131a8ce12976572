"""--interaction, --model genotypic and --robust against dense algebra, on any number of ranks."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import joint_oracle
import low_rank_oracle
import numpy as np
import oracle
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from ranks import few_ranks
from scipy import stats
from small_study import (
    PlinkFiles,
    on_root,
    read_columns,
    read_facts,
    read_plink,
    read_results,
    read_table,
    write_genotypes,
    write_kinship,
    write_lines,
)

import mpgls
from mpgls.errors import InputError, UsageError
from mpgls.report import scan_report
from mpgls.stream.store import open_store

DATA = Path(__file__).resolve().parents[1] / "data"
N, M, H2 = 83, 31, 0.4
SITES = np.array(["north", "south", "west"])
DEPENDENT = "a column of the SNP depends on the others"


@dataclass(frozen=True)
class Study:
    """Simulated files with missing genotypes, SNPs that cannot be tested, and covariates far from 0 and of words."""

    folder: Path
    bfile: str
    pheno: str
    covar: str
    grm: str
    plink: PlinkFiles
    age: np.ndarray
    site: np.ndarray

    @property
    def traits(self) -> dict[str, np.ndarray]:
        return read_table(self.pheno)

    @property
    def indicators(self) -> list[np.ndarray]:
        """Of each site but the largest, which is north."""
        return [(self.site == name).astype(float) for name in SITES[1:]]

    def Phi(self, left_out: str | None = None) -> np.ndarray:
        X = self.plink.centred()[:, self.plink.chromosomes != left_out]
        return oracle.scaled(X @ X.T)


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, prefix, grm = module_comm, str(module_folder / "g"), str(module_folder / "K.h5")
    mpgls.simulate(samples=N, snps=M, out=prefix, traits=2, chromosomes=3, missing=0.04, h2=0.5, seed=6, comm=comm)
    rng = np.random.default_rng(8)
    age, site = 1950 + 10 * rng.standard_normal(N), SITES[rng.choice(3, N, p=[0.5, 0.25, 0.25])]

    def change() -> None:
        x = rng.binomial(2, rng.uniform(0.3, 0.5, M), (N, M)).astype(float)
        x[rng.random((N, M)) < 0.04] = np.nan
        x[:, 3] = 2 * rng.integers(0, 2, N)  # no heterozygotes
        x[site == "west", 7] = 0.0  # no carrier there
        x[:, 11] = 2.0
        x[:, 12] = np.nan
        write_genotypes(prefix, x)
        ids = read_plink(prefix).ids
        columns = zip(ids, age.tolist(), site, rng.random(N).tolist(), strict=True)
        rows = [f"{f}\t{i}\t{a!r}\t{s}\t{b!r}" for (f, i), a, s, b in columns]
        write_lines(f"{prefix}.covar.tsv", ["FID\tIID\tage\tsite\tother", *rows])

    on_root(comm, change)
    mpgls.kinship(bfile=prefix, loco=True, out=grm.removesuffix(".h5"), threads=1, comm=comm)
    plink = read_plink(prefix)
    return Study(module_folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", grm, plink, age, site)


def scan(comm, study, out, command=mpgls.single_trait, **options):
    """Run the command on trait1 at h2 = 0.4 unless told otherwise. Returns the prefix of its outputs."""
    prefix = study.folder / out
    files = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": "trait1", "covar": study.covar, "h2": H2}
    if command is mpgls.single_trait:
        files["grm"] = study.grm
    command(out=prefix, threads=1, comm=comm, **{"no_plots": True, **files, **options})
    comm.Barrier()
    return prefix


@dataclass(frozen=True)
class Model:
    """What the oracle takes: V, the covariates X and E, and how the columns of a SNP are called, made and tested."""

    V: np.ndarray
    X: np.ndarray
    E: list[np.ndarray]
    names: tuple[str, ...]
    coding: str = "additive"
    test: str = "t"
    hc3: bool = False

    @property
    def tests(self) -> dict[str, list[int]]:
        """Which columns are tested together."""
        every, own = list(range(len(self.names))), 2 if self.coding == "genotypic" else 1
        return {"JOINT": every} | ({"INTERACTION": every[own:]} if len(every) > own + 1 else {})

    def fit(self, study: Study, snp: int):
        """Effects, errors and p of the columns, and statistic and p of the tests."""
        x = study.plink.dosages[:, snp]
        coded = np.minimum(x, 1) if self.coding == "dominant" else x
        S = joint_oracle.columns_of(coded, self.E, self.coding == "genotypic")
        tests = list(self.tests.values())
        return joint_oracle.fit(self.V, self.X, S, study.traits["trait1"], tests, self.test, self.hc3)


def assert_joint(results, study, snp, model):
    """The row of a SNP equals the oracle's."""
    beta, se, p, joint = model.fit(study, snp)
    for k, name in enumerate(model.names):
        ending = f"_{name}" if k else ""
        row = [results[f"{what}{ending}"][snp] for what in ("BETA", "SE", "P")]
        assert_allclose(row, [beta[k], se[k], p[k]], rtol=1e-8, err_msg=f"{snp} {name}")
    for (name, columns), (statistic, p_joint) in zip(model.tests.items(), joint, strict=True):
        kind = "F" if model.test == "t" else "CHI2"
        row = [results[f"{what}_{name}"][snp] for what in (kind, "DF", "P")]
        assert_allclose(row, [statistic, len(columns), p_joint], rtol=1e-8, err_msg=f"{snp} {name}")
    assert ("P_INTERACTION" in results) == ("INTERACTION" in model.tests)


BY_SITE = ("SNP", "SNPxsite=south", "SNPxsite=west")


# -- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "genotypic", "options"),
    [
        ("age,site", False, {"robust": "hc3", "model": "dominant"}),
        ("site", False, {"robust": "hc3", "test": "wald", "team_size": 2, "solver": "grid", "condition": "rs10"}),
        ("", True, {"covar": None}),
        ("age", True, {"team_size": 2}),
        ("2-2", False, {"covar_name": "other", "team_size": 2, "robust": "hc3"}),
    ],
)
def test_single_trait_equals_the_oracle(comm, study, wanted, genotypic, options):
    options = {"model": "genotypic" if genotypic else "additive"} | options
    if "team_size" in options:
        options |= {"team_size": min(comm.size, 2), "block_size": 5}
    out = scan(comm, study, "o", interaction=wanted or (), **options)
    if comm.rank == 0:
        of_site = wanted in ("site", "age,site", "2-2")  # the second column of the file
        E = [study.age] * ("age" in wanted) + study.indicators * of_site
        own = ["SNP", "DOMDEV"][: 1 + genotypic]
        named = ["age"] * ("age" in wanted) + ["site=south", "site=west"] * of_site
        names = (*own, *(f"{one}x{name}" for name in named for one in own))
        other = read_covariate(study, "other")
        X = [np.ones(N), study.age, *study.indicators, other]
        if options.get("covar", study.covar) is None:
            X = X[:1]
        elif "covar_name" in options:
            X = [np.ones(N), other, *study.indicators]
        if "condition" in options:
            X.append(study.plink.centred()[:, 9])
        results = read_results(out, "trait1")
        notes = {3: DEPENDENT} if genotypic else {}
        notes |= {7: DEPENDENT} if of_site else {}
        notes |= {11: "monomorphic", 12: "all genotypes missing"}
        notes |= {9: "conditioned on"} if "condition" in options else {}
        found = {k: note for k, note in enumerate(results["NOTE"]) if note != "."}
        assert found == notes
        V, X_L = oracle.covariance(H2, study.Phi()), np.column_stack(X)
        model = Model(V, X_L, E, names, options["model"], options.get("test", "t"), "robust" in options)
        tested = np.flatnonzero(results["NOTE"] == ".")
        assert tested.size == M - len(notes)
        for snp in tested:
            assert_joint(results, study, snp, model)
        untested = results["NOTE"] != "."
        assert all(np.isnan(results[name][untested]).all() for name in ("BETA", f"SE_{names[1]}", "P_JOINT"))
        assert read_facts(out, "trait1")["df"] == N - len(X) - len(names)


def read_covariate(study, name):
    return np.array([float(value) for value in read_columns(study.covar)[name]])


@few_ranks
def test_without_each_chromosome_and_with_eigenvectors(comm, study):
    """--loco has V without the SNP's chromosome; a basis gives what a factor gives."""
    loco = scan(comm, study, "l", loco=True, interaction="site", block_size=3)
    mpgls.eigen(grm=study.grm, out=study.folder / "e", threads=1, comm=comm)
    basis = scan(comm, study, "b", grm=None, eigen=str(study.folder / "e.h5"), interaction="site", model="genotypic")
    factor = scan(comm, study, "f", interaction="site", model="genotypic")
    if comm.rank == 0:
        results, X = (
            read_results(loco, "trait1"),
            np.column_stack([np.ones(N), study.age, *study.indicators, read_covariate(study, "other")]),
        )
        for snp in np.flatnonzero(results["NOTE"] == ".")[::2]:
            V = oracle.covariance(H2, study.Phi(study.plink.chromosomes[snp]))
            assert_joint(results, study, snp, Model(V, X, study.indicators, BY_SITE))
        first, second = read_results(basis, "trait1"), read_results(factor, "trait1")
        assert_array_equal(first["NOTE"], second["NOTE"])
        for name in ("BETA_SNPxsite=west", "SE_DOMDEVxsite=south", "P_JOINT"):
            assert_allclose(first[name], second[name], rtol=1e-7, err_msg=name)


@pytest.mark.parametrize("form", ["low-rank", "dense"])
def test_low_rank_equals_the_oracle_without_each_chromosome(comm, study, form):
    chosen = {"similarity_every": 1, "form": form, "test": "wald", "block_size": 4}
    out = scan(comm, study, "r", mpgls.low_rank, interaction="site", **chosen)
    if comm.rank == 0:
        X = np.column_stack([np.ones(N), study.age, *study.indicators, read_covariate(study, "other")])
        results, used = read_results(out, "trait1"), np.delete(np.arange(M), [11, 12])
        G, of = low_rank_oracle.standardised(study.plink.dosages[:, used]), study.plink.chromosomes[used]
        for snp in np.flatnonzero(results["NOTE"] == "."):
            Phi = low_rank_oracle.similarity(G[:, of != study.plink.chromosomes[snp]])
            V = oracle.covariance(H2, Phi)
            assert_joint(results, study, snp, Model(V, X, study.indicators, BY_SITE, test="wald"))


@few_ranks
def test_low_rank_equals_single_trait_with_the_kinship_of_the_same_snps(comm, study):
    options = {"interaction": "age", "model": "genotypic", "h2": None}
    low = scan(comm, study, "r", mpgls.low_rank, similarity_every=1, form="low-rank", no_loco=True, **options)
    grm = study.folder / "same.h5"
    used = np.delete(np.arange(M), [11, 12])
    G = low_rank_oracle.standardised(study.plink.dosages[:, used])
    on_root(comm, lambda: write_kinship(grm, study.plink.ids, low_rank_oracle.similarity(G)))
    exact = scan(comm, study, "x", grm=str(grm), **options)
    if comm.rank == 0:
        first, second = read_results(low, "trait1"), read_results(exact, "trait1")
        assert_array_equal(first["NOTE"], second["NOTE"])
        for name in ("BETA", "SE_DOMDEV", "BETA_DOMDEVxage", "F_JOINT", "P_JOINT", "P_INTERACTION"):
            assert_allclose(first[name], second[name], rtol=1e-6, err_msg=name)


@few_ranks
@pytest.mark.parametrize("command", ["single-trait", "low-rank"])
def test_mixed_precision_is_close_to_double(comm, study, command):
    options = {"interaction": "age,site"}
    run = mpgls.single_trait if command == "single-trait" else mpgls.low_rank
    extra = {} if command == "single-trait" else {"similarity_every": 1, "form": "low-rank"}
    double = scan(comm, study, f"d-{command}", run, **options, **extra)
    mixed = scan(comm, study, f"m-{command}", run, precision="mixed", **options, **extra)
    if comm.rank == 0:
        first, second = read_results(double, "trait1"), read_results(mixed, "trait1")
        both = (first["NOTE"] == ".") & (second["NOTE"] == ".")
        assert both.sum() > M / 2
        for name in ("BETA", "BETA_SNPxsite=west"):
            error = first[name.replace("BETA", "SE")][both]
            assert np.abs(second[name] - first[name])[both].max() <= 1e-3 * error.max()
        assert read_facts(mixed, "trait1")["mixed_check_beta"] < 1e-2


RUNS = {
    "interaction": ("additive", "age,site"),
    "genotypic": ("genotypic", ()),
    "genotypic interaction": ("genotypic", "age,site"),
}


@few_ranks
@pytest.mark.parametrize("run", RUNS)
def test_without_kinship_it_is_plink2s_glm(comm, study, run):
    """To the six digits that plink2 writes; its P of a joint F has n degrees of freedom where n - p are left."""
    bfile, grm = str(DATA / "plink2_glm"), study.folder / "identity.h5"
    ids = read_plink(bfile).ids
    on_root(comm, lambda: write_kinship(grm, ids, np.eye(len(ids))))
    (model, interaction), covar = RUNS[run], f"{bfile}.covar.tsv"
    files = {"bfile": bfile, "pheno": None, "pheno_name": (), "covar": covar, "grm": str(grm)}
    out = scan(comm, study, f"plink-{model}-{len(interaction)}", h2=0.0, model=model, interaction=interaction, **files)
    if comm.rank == 0:
        results, n = read_results(out, "pheno"), len(ids)
        rows = [
            row for row in read_rows_of(gzip.decompress((DATA / "plink2_glm.tsv.gz").read_bytes())) if row["RUN"] == run
        ]
        df = read_facts(out, "pheno")["df"]
        for row in rows:
            snp, test = list(results["ID"]).index(row["ID"]), row["TEST"]
            if row["BETA"] == row["STAT"]:
                assert row["BETA"] == "NA" and results["NOTE"][snp] == DEPENDENT
                continue
            if test in ("JOINT", "INTERACTION"):
                F, count = results[f"F_{test}"][snp], int(results[f"DF_{test}"][snp])
                assert_six_digits(F, row["STAT"])
                assert results[f"P_{test}"][snp] == pytest.approx(stats.f.sf(F, count, df), rel=1e-9)
                assert_six_digits(stats.f.sf(F, count, n), row["P"])
                continue
            name = test.replace("ADD", "SNP").replace("south", "site=south").replace("west", "site=west")
            ending = "" if name == "SNP" else f"_{name}"
            for column in ("BETA", "SE", "P"):
                assert_six_digits(results[f"{column}{ending}"][snp], row[column])
        assert len(rows) == {"interaction": 72, "genotypic": 36, "genotypic interaction": 120}[run]


def assert_six_digits(value, text):
    """``text`` has the number to six digits; p values near 1 have fewer zeros behind."""
    written = float(text)
    assert abs(value - written) <= 0.6 * 10.0 ** (np.floor(np.log10(abs(written))) - 5), (value, text)


def read_rows_of(text):
    header, *rows = [line.split("\t") for line in text.decode().splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


# -- the store and its table ----------------------------------------------------------------------------------------


@few_ranks
def test_a_resumed_run_and_an_export_have_the_same_table(comm, study):
    options = {"interaction": "site", "robust": "hc3", "block_size": 6}
    out = scan(comm, study, "s", **options)
    whole = Path(f"{out}.trait1.tsv").read_bytes()
    store = open_store(f"{out}.h5")
    assert store.dtype.names[-3:] == ("f_INTERACTION", "df_INTERACTION", "log10p_INTERACTION")
    mpgls.export(store=f"{out}.h5", out=study.folder / "exported", comm=comm)

    def spoil() -> None:
        with open(f"{out}.h5", "r+b") as file:
            file.seek(store.traits[0].sum_offset(2))
            file.write(b"\x00" * 4)  # block 2 is not done
        for ending in (".json", ".trait1.tsv"):
            Path(f"{out}{ending}").unlink()

    exported = (study.folder / "exported.tsv").read_bytes()
    on_root(comm, spoil)
    scan(comm, study, "s", resume=True, **options)
    assert Path(f"{out}.trait1.tsv").read_bytes() == whole == exported
    with pytest.raises(InputError, match="--robust"):
        scan(comm, study, "s", resume=True, **{**options, "robust": "none"})


@few_ranks
def test_plots_and_the_log_are_of_the_joint_test(comm, study, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        scan_report, "draw_on_ranks", lambda comm, draws, say: drawn.extend(draws.values()) or list(draws)
    )
    out = scan(comm, study, "p", interaction="age", no_plots=False)
    if comm.rank == 0:
        results = read_results(out, "trait1")
        best = np.nanmax(results["LOG10P_JOINT"])
        assert read_facts(out, "trait1")["top"][0]["log10p"] == pytest.approx(best, rel=1e-12)
        assert f"joint -log10 p {best:.2f}" in Path(f"{out}.log").read_text()
        assert [one.keywords["title"] for one in drawn] == ["trait1, joint test"] * 2
        assert drawn[0].args[0].top_hits[0].log10p == pytest.approx(best, rel=1e-12)


# -- refusals -------------------------------------------------------------------------------------------------------


@few_ranks
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"interaction": "agee"}, UsageError, "covar.tsv has no column 'agee'; its columns are age, site, other"),
        ({"interaction": "age", "covar": None}, UsageError, "--interaction needs --covar"),
        ({"interaction": "age", "ratio": "snp", "h2": None}, UsageError, "--ratio snp knows SNPs of one column only"),
        ({"model": "genotypic", "x_model": 1}, UsageError, "--model genotypic needs --x-model 2"),
        ({"robust": "hc3"}, UsageError, "--robust belongs to --interaction and --model genotypic"),
        ({"interaction": "age", "dry_run": True}, UsageError, "--dry-run does not know what --interaction costs"),
        ({"interaction": "age", "robust": "hc3", "eigen": "e", "grm": None}, UsageError, "--robust needs residuals"),
    ],
)
def test_what_does_not_go_together_is_refused(comm, study, options, error, text):
    with pytest.raises(error, match=text):
        scan(comm, study, "n", **options)


@few_ranks
def test_low_rank_has_no_robust_errors(comm, study):
    with pytest.raises(UsageError, match="--robust needs each sample's residual"):
        scan(comm, study, "n", mpgls.low_rank, similarity_every=1, interaction="age", robust="hc3")
