"""--condition in every scan: generalised least squares with the SNPs among the covariates, by dense oracles."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import oracle
import pytest
import vgwas_oracle
from ranks import few_ranks
from small_study import (
    PlinkFiles,
    on_root,
    read_facts,
    read_plink,
    read_results,
    read_rows,
    read_table,
    relabel_chromosomes,
    write_genotypes,
    write_kinship,
    write_lines,
    write_table,
)

import mpgls
from mpgls.errors import InputError, UsageError

pytestmark = few_ranks

N, M, H2 = 83, 41, 0.4
ON = (7, 29)
"""The SNPs that are conditioned on, on two chromosomes; SNP 12 is the second with its alleles exchanged."""
TRAITS = ("a", "b")
LABELS = np.repeat(["1", "2"], [20, M - 20])


class Study:
    """Files with missing genotypes, two traits of which the second lacks samples, and a kinship with its sums."""

    def __init__(self, folder: Path, plink: PlinkFiles) -> None:
        self.folder, self.prefix, self.plink = folder, str(folder / "g"), plink
        self.traits = read_table(folder / "t.tsv")
        self.covariates = np.column_stack([np.ones(N), *read_table(f"{self.prefix}.covar.tsv").values()])

    def options(self, out: Path, **chosen):
        return {
            "bfile": self.prefix, "pheno": str(self.folder / "t.tsv"), "covar": f"{self.prefix}.covar.tsv",
            "no_plots": True, "threads": 1, "out": out, "h2": H2, **chosen,
        }  # fmt: skip

    def scan(self, trait: str, Phi: np.ndarray, on=ON, h2=H2) -> tuple[np.ndarray, np.ndarray]:
        """Which SNPs can be tested, and BETA, SE, STAT and P of those."""
        rows = np.flatnonzero(np.isfinite(self.traits[trait]))
        X = self.plink.centred(rows)
        design = np.column_stack([self.covariates[rows], X[:, list(on)]])
        tested = np.setdiff1d(np.arange(M), [*on, *([12] if 29 in on else [])])
        return tested, oracle.scan(h2, Phi[np.ix_(rows, rows)], design, self.traits[trait][rows], X[:, tested])

    def Phi(self, trait: str = "a", without: str | None = None) -> np.ndarray:
        X = self.plink.centred()[:, without != LABELS]
        rows = np.flatnonzero(np.isfinite(self.traits[trait]))
        K = X @ X.T
        return K / np.mean(np.diag(K)[rows])


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    folder, prefix = module_folder, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, missing=0.04, seed=3, out=prefix, comm=module_comm)
    rng = np.random.default_rng(7)
    G = rng.binomial(2, rng.uniform(0.3, 0.7, M), (N, M)).astype(float)
    G[rng.random(G.shape) < 0.04] = np.nan
    G[:, 12] = 2 - G[:, 29]
    plink, y = read_plink(prefix), np.nan_to_num(G) @ rng.normal(0, 0.3, M) + rng.normal(size=(2, N))
    y[1, [3, 40, 77]] = np.nan

    def change():
        write_genotypes(prefix, G)
        relabel_chromosomes(prefix, LABELS.tolist())
        write_table(folder / "t.tsv", plink.ids, dict(zip(TRAITS, y, strict=True)))
        write_lines(folder / "on.txt", [f"{plink.snps[ON[1]]},{plink.snps[ON[0]]}"])

    on_root(module_comm, change)
    mpgls.kinship(bfile=prefix, loco=True, out=folder / "K", threads=1, comm=module_comm)
    return Study(folder, read_plink(prefix))


def assert_rows(found, tested, expected, rtol=1e-8):
    for name, figures in zip(("BETA", "SE", "STAT", "P"), expected, strict=True):
        np.testing.assert_allclose(found[name][tested], figures, rtol=rtol)
        assert np.isnan(found[name][np.setdiff1d(np.arange(M), tested)]).all()
    assert (found["NOTE"][list(ON)] == "conditioned on").all()
    assert found["NOTE"][12] == "collinear with the covariates"
    assert (found["NOTE"][tested] == ".").all()


def test_single_trait_over_the_samples_of_each_trait(comm, study, shared_tmp_path):
    out, (first, second) = shared_tmp_path / "o", study.plink.snps[list(ON)]
    mpgls.single_trait(
        **study.options(out, grm=str(study.folder / "K.h5"), condition=f"{second},{first}", precision="double"),
        comm=comm,
    )
    comm.Barrier()
    for trait in TRAITS:
        assert_rows(read_results(out, trait), *study.scan(trait, study.Phi(trait)))
    log = Path(f"{out}.log").read_text()
    assert f"conditioned on 2 SNPs: {first} (1:" in log and f"; {second} (2:" in log
    names = list(read_facts(out, "b")["covariates"])
    assert names[0] == "intercept" and names[-2:] == [first, second]


def test_the_null_model_has_the_snps(comm, study, shared_tmp_path):
    """h2 and the effects of the SNPs of the null model are those of a design that has them."""
    mpgls.eigen(grm=str(study.folder / "K.h5"), out=shared_tmp_path / "E", threads=1, comm=comm)
    design = np.column_stack([study.covariates, study.plink.dosages[:, list(ON)]])
    mean = np.nanmean(design, axis=0)
    design = np.where(np.isnan(design), mean, design)
    h2 = oracle.sharp_h2(study.Phi(), design, study.traits["a"])
    beta, _, _ = oracle.gls(design, study.traits["a"], oracle.covariance(h2, study.Phi()))
    for k, source in enumerate(({"eigen": str(shared_tmp_path / "E.h5")}, {"grm": str(study.folder / "K.h5")})):
        out = shared_tmp_path / f"o{k}"
        options = study.options(out, condition_list=str(study.folder / "on.txt"), pheno_name="a", **source)
        mpgls.single_trait(**options | {"h2": None}, comm=comm)
        comm.Barrier()
        facts = read_facts(out, "a")
        assert facts["h2"] == pytest.approx(h2, abs=1e-7)
        np.testing.assert_allclose([effect for effect, _ in facts["covariates"].values()], beta, rtol=1e-5)
        assert_rows(read_results(out, "a"), *study.scan("a", study.Phi(), h2=facts["h2"]), rtol=1e-7)


def test_a_covariate_that_is_called_as_a_snp_or_a_component_keeps_its_effect(comm, study, shared_tmp_path):
    """The manifest has the effects of both."""
    pytest.importorskip("slepc4py")
    name, out, folder = study.plink.snps[ON[0]], shared_tmp_path / "o", shared_tmp_path
    Z = np.linalg.eigh(study.Phi())[1][:, -1]
    columns = dict(zip((name, "PC1"), study.covariates[:, 1:].T, strict=True))
    on_root(comm, lambda: write_table(folder / "c.tsv", study.plink.ids, columns))
    chosen = {"covar": str(folder / "c.tsv"), "condition": name, "pcs": 1, "pheno_name": "a"}
    mpgls.single_trait(**study.options(out, grm=str(study.folder / "K.h5"), **chosen), comm=comm)
    comm.Barrier()
    x = study.plink.dosages[:, ON[0]]
    design = np.column_stack([study.covariates, np.where(np.isnan(x), np.nanmean(x), x), Z])
    beta, _, _ = oracle.gls(design, study.traits["a"], oracle.covariance(H2, study.Phi()))
    effects = {key: effect for key, (effect, _) in read_facts(out, "a")["covariates"].items()}
    assert list(effects) == ["intercept", name, "PC1", f"{name} (2)", "PC1 (2)"]
    np.testing.assert_allclose([*effects.values()][:-1], beta[:-1], rtol=1e-7)
    assert abs(effects["PC1 (2)"]) == pytest.approx(abs(beta[-1]), rel=1e-7)  # the sign of a vector is free


def test_loco_has_the_snps_of_every_chromosome(comm, study, shared_tmp_path):
    out, names = shared_tmp_path / "o", study.plink.snps[list(ON)].tolist()
    options = study.options(out, grm=str(study.folder / "K.h5"), condition=names, loco=True, pheno_name="a")
    mpgls.single_trait(**options, comm=comm)
    comm.Barrier()
    found = read_results(out, "a")
    for label in ("1", "2"):
        tested, expected = study.scan("a", study.Phi(without=label))
        here = LABELS[tested] == label
        np.testing.assert_allclose(found["BETA"][tested[here]], expected[0][here], rtol=1e-8)
        np.testing.assert_allclose(found["SE"][tested[here]], expected[1][here], rtol=1e-8)


@pytest.mark.parametrize("form", ["low-rank", "dense"])
def test_low_rank(comm, study, shared_tmp_path, form):
    out, names = shared_tmp_path / "o", ",".join(study.plink.snps[list(ON)])
    options = study.options(out, similarity_every=3, no_loco=True, form=form, condition=names)
    mpgls.low_rank(**options, comm=comm)
    comm.Barrier()
    for trait in TRAITS:
        rows = np.flatnonzero(np.isfinite(study.traits[trait]))
        part = study.plink.dosages[rows][:, ::3]
        G = np.full((N, part.shape[1]), 0.0)
        G[rows] = np.nan_to_num((part - np.nanmean(part, axis=0)) / np.nanstd(part, axis=0))
        K = G @ G.T
        assert_rows(read_results(out, trait), *study.scan(trait, K / np.mean(np.diag(K)[rows])))


def test_many_traits_by_their_samples(comm, study, shared_tmp_path):
    out = shared_tmp_path / "o"
    options = study.options(out, grm=str(study.folder / "K.h5"), condition=study.plink.snps[list(ON)].tolist())
    mpgls.multi_trait(**options, p_threshold=1.0, dense=True, comm=comm)
    comm.Barrier()
    hits = read_rows(f"{out}.hits.tsv")
    for trait in TRAITS:
        tested, expected = study.scan(trait, study.Phi(trait))
        rows = {row["ID"]: row for row in hits if row["TRAIT"] == trait}
        assert set(rows) == set(study.plink.snps[tested])
        found = [[float(rows[name][column]) for name in study.plink.snps[tested]] for column in ("BETA", "SE")]
        np.testing.assert_allclose(found, expected[:2], rtol=1e-8)
    mpgls.export(store=f"{out}.h5", trait="b", out=shared_tmp_path / "e", comm=comm)
    comm.Barrier()
    (exported,) = shared_tmp_path.glob("e*.tsv")
    notes = {row["ID"]: row["NOTE"] for row in read_rows(exported)}
    assert [notes[name] for name in study.plink.snps[list(ON)]] == ["conditioned on"] * 2


def test_voxels(comm, study, shared_tmp_path):
    out, names = shared_tmp_path / "o", study.plink.snps[list(ON)].tolist()
    options = study.options(out, pheno_name="a", condition=names, permutations=0, sparsity_threshold=1.0)
    mpgls.vgwas(**{name: value for name, value in options.items() if name != "h2"}, precision="double", comm=comm)
    comm.Barrier()
    rows, X = read_rows(f"{out}.snps.tsv"), study.plink.centred()
    Z = np.column_stack([study.covariates, X[:, list(ON)]])
    tested = np.setdiff1d(np.arange(M), [*ON, 12])
    t = vgwas_oracle.t_scores(X[:, tested], study.traits["a"][:, None], Z)[:, 0]
    np.testing.assert_allclose([float(rows[k]["T"]) for k in tested], t, rtol=1e-8)
    assert [rows[k]["NOTE"] for k in (*ON, 12)] == ["conditioned on"] * 2 + ["collinear with the covariates"]


def test_files_of_chromosomes_and_a_snp_that_filters_leave_out(comm, study, shared_tmp_path):
    """The genotypes in one file a chromosome; the SNP of chromosome 2 is conditioned on where only 1 is tested."""

    def split():
        bim = Path(f"{study.prefix}.bim").read_text().splitlines()
        for label in ("1", "2"):
            prefix = shared_tmp_path / f"c{label}"
            shutil.copy(f"{study.prefix}.fam", f"{prefix}.fam")
            write_lines(f"{prefix}.bim", [line for line, of in zip(bim, LABELS, strict=True) if of == label])
            write_genotypes(prefix, study.plink.dosages[:, label == LABELS])

    on_root(comm, split)
    out, (first, second) = shared_tmp_path / "o", study.plink.snps[list(ON)]
    options = study.options(out, bfile=str(shared_tmp_path / "c@"), grm=str(study.folder / "K.h5"), pheno_name="a")
    mpgls.single_trait(**options, condition=(first, second), chr="1", maf=0.01, comm=comm)
    comm.Barrier()
    found, (tested, expected) = read_results(out, "a"), study.scan("a", study.Phi())
    assert found["ID"].tolist() == study.plink.snps[:20].tolist() and found["NOTE"][7] == "conditioned on"
    here = tested < 20
    np.testing.assert_allclose(found["SE"][tested[here]], expected[1][here], rtol=1e-8)
    assert "which filters leave out of the tables" in Path(f"{out}.log").read_text()


def test_a_snp_of_x_is_as_the_scan_has_it(comm, study, shared_tmp_path):
    """A man's copy of X is 2, as for the SNPs that are tested."""
    prefix, man = str(shared_tmp_path / "x"), np.arange(N) % 3 == 0

    def write():
        for ending in (".bed", ".fam", ".bim"):
            shutil.copy(study.prefix + ending, prefix + ending)
        relabel_chromosomes(prefix, ["X"] * M)
        write_lines(f"{prefix}.fam", [f"{f} {i} 0 0 {2 - m} 0" for (f, i), m in zip(study.plink.ids, man, strict=True)])
        write_kinship(f"{prefix}.K.h5", study.plink.ids, np.eye(N))

    on_root(comm, write)
    out = shared_tmp_path / "o"
    options = study.options(out, bfile=prefix, grm=f"{prefix}.K.h5", pheno_name="a", h2=0.0)
    mpgls.single_trait(**options, condition=study.plink.snps[7], comm=comm)
    comm.Barrier()
    G = np.where(man[:, None] & (study.plink.dosages == 1), np.nan, study.plink.dosages)
    X = np.nan_to_num(G - np.nanmean(G, axis=0))
    found, tested = read_results(out, "a"), np.setdiff1d(np.arange(M), [7])
    design = np.column_stack([study.covariates, X[:, 7]])
    expected = oracle.scan(0.0, np.eye(N), design, study.traits["a"], X[:, tested])
    np.testing.assert_allclose(found["SE"][tested], expected[1], rtol=1e-8)


def test_what_cannot_be_conditioned_on_is_named(comm, study, shared_tmp_path):
    prefix, snps = str(shared_tmp_path / "g"), study.plink.snps

    def write():
        for ending in (".bed", ".fam", ".bim"):
            shutil.copy(study.prefix + ending, prefix + ending)
        G = study.plink.dosages.copy()
        G[:, 5], G[:, 6] = 1.0, np.nan
        write_genotypes(prefix, G)
        bim = Path(f"{prefix}.bim").read_text().splitlines()
        bim[9] = bim[9].replace(snps[9], snps[8])
        write_lines(f"{prefix}.bim", bim)
        write_lines(f"{prefix}.empty", [""])
        write_lines(f"{prefix}.second", [snps[1]])

    on_root(comm, write)
    options = study.options(shared_tmp_path / "o", bfile=prefix, grm=str(study.folder / "K.h5"))
    for error, text, chosen in (
        (InputError, "g.bim has no SNP 'none', which --condition names", {"condition": "none"}),
        (InputError, "line 9 and .*line 10 are both SNP", {"condition": snps[8]}),
        (UsageError, f"names SNP '{snps[1]}' 2 times", {"condition": f"{snps[1]},{snps[2]},{snps[1]}"}),
        (
            UsageError, f"--condition and --condition-list name SNP '{snps[1]}' 2 times",
            {"condition": snps[1], "condition_list": f"{prefix}.second"},
        ),
        (UsageError, "--condition-list names no SNP", {"condition_list": f"{prefix}.empty"}),
        (InputError, f"SNP '{snps[5]}', .* the same genotype.* in all 83 analysed", {"condition": snps[5]}),
        (InputError, f"SNP '{snps[6]}', .* is missing in all 83 analysed", {"condition": snps[6]}),
        (InputError, f"collinear .*'{snps[29]}' is a linear combination of .*'{snps[12]}'",
         {"condition": (snps[12], snps[29])}),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            mpgls.single_trait(**options, **chosen, comm=comm)


def test_a_run_with_other_snps_is_not_resumed(comm, study, shared_tmp_path):
    options = study.options(shared_tmp_path / "o", grm=str(study.folder / "K.h5"))
    mpgls.single_trait(**options, condition=study.plink.snps[7], comm=comm)
    with pytest.raises(InputError, match="--condition"):
        mpgls.single_trait(**options, condition=study.plink.snps[8], resume=True, comm=comm)
