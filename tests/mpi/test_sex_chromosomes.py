"""X, Y and MT in every command, against dense oracles on genotypes that this test recoded by NumPy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import low_rank_oracle
import numpy as np
import oracle
import pytest
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_kinship,
    read_plink,
    read_results,
    read_rows,
    write_genotypes,
    write_kinship,
    write_lines,
)

import mpgls
from mpgls.errors import InputError, UsageError

pytestmark = few_ranks

N, M = 133, 97
RUNS = (("1", 30), ("2", 20), ("X", 22), ("Y", 10), ("XY", 7), ("MT", 8))
H2 = 0.4
PAR_END, PAR_START = 2_699_520, 154_931_044


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """``sex`` (n,): 1 men, 2 women, 0 unknown; a kinship of the autosomes."""

    sex: np.ndarray
    position: np.ndarray
    grm: str
    Phi: np.ndarray

    def coded(self, x_model: int = 2, par: bool = False, sex: np.ndarray | None = None) -> np.ndarray:
        """The dosages as sex has them, NaN where missing."""
        G, chromosome, sex = self.plink.dosages.copy(), self.plink.chromosomes, self.sex if sex is None else sex
        man, haploid = (sex == 1)[:, None], np.where(G == 1, np.nan, G)
        in_par = par & ((self.position <= PAR_END) | (self.position >= PAR_START))
        on_x = (chromosome == "X") & ~in_par
        G = np.where(on_x & man, haploid / (3 - x_model), G)
        G = np.where(chromosome == "Y", np.where(man, haploid / 2, np.nan), G)
        return np.where(chromosome == "MT", haploid / 2, G)

    def frequency(self, coded: np.ndarray, x_model: int = 2, par: bool = False) -> np.ndarray:
        """Copies of A1 over copies of both alleles, by who has how many."""
        chromosome, man = self.plink.chromosomes, (self.sex == 1)[:, None]
        in_par = par & ((self.position <= PAR_END) | (self.position >= PAR_START))
        on_x = (chromosome == "X") & ~in_par
        ploidy = np.where(np.isin(chromosome, ["Y", "MT"]) | (on_x & man), 1.0, 2.0)
        copies = np.where(on_x & man & (x_model == 2), coded / 2, coded)
        return np.nansum(copies, axis=0) / np.sum(ploidy * ~np.isnan(coded), axis=0)


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    folder, prefix = module_folder, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, traits=2, missing=0.04, seed=5, out=prefix, comm=module_comm)
    rng, labels = np.random.default_rng(2), [label for label, count in RUNS for _ in range(count)]
    sex = rng.choice([0, 1, 2], N, p=(0.05, 0.5, 0.45))
    G = read_plink(prefix).dosages
    G[:, 50:] = np.where(np.isnan(G[:, 50:]), np.nan, rng.binomial(2, rng.uniform(0.2, 0.8, M - 50), (N, M - 50)))
    single = np.isin(labels, ["X", "Y", "MT"]) & (rng.random(G.shape) > 0.03)  # a few stay heterozygous
    G = np.where(single & (G == 1), 2.0 * rng.integers(0, 2, G.shape), G)
    position = np.arange(M) * 10 + 1
    on_x = np.flatnonzero(np.array(labels) == "X")
    position[on_x] = np.linspace(2_000_000, 156_000_000, on_x.size).astype(int)

    def change():
        write_genotypes(prefix, G)
        fam = [line.split() for line in (folder / "g.fam").read_text().splitlines()]
        write_lines(f"{prefix}.fam", ["\t".join([*row[:4], str(s), row[5]]) for row, s in zip(fam, sex, strict=True)])
        bim = [line.split() for line in (folder / "g.bim").read_text().splitlines()]
        rows = zip(labels, bim, position, strict=True)
        write_lines(f"{prefix}.bim", ["\t".join([c, row[1], "0", str(p), *row[4:]]) for c, row, p in rows])

    on_root(module_comm, change)
    plink = read_plink(prefix)
    X = plink.centred()[:, :50]
    Phi, grm = X @ X.T / 50, str(folder / "K.h5")
    on_root(module_comm, lambda: write_kinship(grm, plink.ids, Phi))
    tables = f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv"
    return Study(folder, prefix, *tables, plink, sex, position, grm, Phi)


def run(comm, study, command, **options) -> Any:
    """Run the command in a folder of its own; the prefix of its outputs."""
    folder = study.folder / "run"
    on_root(comm, lambda: (shutil.rmtree(folder, ignore_errors=True), folder.mkdir()))
    usual: dict[str, Any] = {"bfile": study.bfile, "out": folder / "o", "threads": 1}
    if command != "kinship":
        usual |= {"pheno": study.pheno, "pheno_name": "trait1", "no_plots": True}
    usual |= {
        "kinship": {},
        "single_trait": {"grm": study.grm, "h2": H2},
        "multi_trait": {"grm": study.grm, "h2": H2, "p_threshold": 1.0},
        "low_rank": {"similarity_every": 1, "h2": H2, "no_loco": True},
        "vgwas": {"permutations": 0},
        "ridge": {"permutations": 0, "outer_folds": 2, "inner_folds": 2, "weights": 1},
    }[command]
    getattr(mpgls, command)(comm=comm, **usual | options)
    comm.Barrier()
    return folder / "o"


def centred(G: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(G), 0.0, G - np.nanmean(G, axis=0))


def table_of(out, command):
    """ID, EAF, N, BETA and SE of the SNPs that have an effect, from a table."""
    ending = {"multi_trait": "hits", "vgwas": "snps"}.get(command, "trait1")
    return {row["ID"]: row for row in read_rows(f"{out}.{ending}.tsv")}


@pytest.mark.parametrize(
    "options", [{}, {"x_model": 1}, {"build": 37}, {"build": 37, "x_model": 1}], ids=["plain", "x1", "par", "par-x1"]
)
@pytest.mark.parametrize("command", ["single_trait", "multi_trait", "low_rank"])
def test_effects_frequencies_and_counts(comm, study, command, options):
    out = run(comm, study, command, **options)
    if comm.rank:
        return
    rule = {"x_model": options.get("x_model", 2), "par": "build" in options}
    G = study.coded(**rule)
    X, y = study.design(False), study.trait()
    if command == "low_rank":
        data = study.plink.dosages[:, :50], study.plink.chromosomes[:50], G, study.plink.chromosomes, y, X
        found = low_rank_oracle.dense(*data, loco=False, h2=dict.fromkeys(("1", "2", "X", "Y", "XY", "MT"), H2))
        beta, se = found.beta, found.se
    else:
        beta, se, _, _ = oracle.scan(H2, oracle.scaled(study.Phi), X, y, centred(G))
    table, eaf = table_of(out, command), study.frequency(G, **rule)
    assert len(table) == M
    for k, name in enumerate(study.plink.snps):
        row = table[name]
        assert float(row["BETA"]) == pytest.approx(beta[k], rel=1e-8, abs=1e-9), (name, study.plink.chromosomes[k])
        assert float(row["SE"]) == pytest.approx(se[k], rel=1e-8)
        assert int(row["N"]) == np.sum(~np.isnan(G[:, k]))
        assert float(row["EAF"]) == pytest.approx(eaf[k], rel=1e-9)


@pytest.mark.parametrize(
    ("how", "rtol"),
    [({"precision": "mixed", "block_size": 7}, 1e-3), ({"solver": "inverse"}, 1e-8), ({"solver": "grid"}, 1e-8)],
    ids=["mixed", "inverse", "grid"],
)
def test_how_it_is_solved_changes_nothing_of_it(comm, study, how, rtol):
    """Teams of all ranks exchange rows as they are read, or decoded columns."""
    teams = {"team_size": comm.size} if "solver" in how else {}
    out = run(comm, study, "single_trait", **how, **teams)
    if comm.rank == 0:
        expected = oracle.scan(H2, oracle.scaled(study.Phi), study.design(False), study.trait(), centred(study.coded()))
        np.testing.assert_allclose(read_results(out, "trait1")["BETA"], expected[0], rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("command", ["vgwas", "ridge"])
def test_other_commands_decode_the_same(comm, study, command):
    """A .bed that was made of the recoded genotypes, on autosomes, gives the same numbers (XY and X 0/2 and 0/1)."""
    out = run(comm, study, command, x_model=1)
    ending = {"vgwas": "snps", "ridge": "weights"}[command]
    found = [list(row.values()) for row in read_rows(f"{out}.{ending}.tsv")] if comm.rank == 0 else None
    made = str(study.folder / "made")

    def write():
        for end in ("fam", "bim"):
            shutil.copy(f"{study.bfile}.{end}", f"{made}.{end}")
        bim = [line.split() for line in (study.folder / "made.bim").read_text().splitlines()]
        write_lines(f"{made}.bim", ["\t".join(["1", *row[1:]]) for row in bim])
        write_genotypes(made, study.coded(x_model=1))

    on_root(comm, write)
    out = run(comm, study, command, bfile=made)
    if comm.rank == 0:
        rows = read_rows(f"{out}.{ending}.tsv")
        columns = [name for name in rows[0] if name not in ("CHR", "EAF")]
        keep = [list(rows[0]).index(name) for name in columns]
        assert [[row[k] for k in keep] for row in found] == [[row[name] for name in columns] for row in rows]


def test_the_log_says_what_was_done(comm, study):
    out = run(comm, study, "single_trait")
    if comm.rank:
        return
    log, man = (out.parent / "o.log").read_text(), study.sex == 1
    het = {label: (study.plink.dosages[:, study.plink.chromosomes == label] == 1) for label in ("X", "Y", "MT")}
    assert f"chromosome X: 22 SNPs; {man.sum()} men, whose one copy counts 2; {het['X'][man].sum()} hetero" in log
    assert f"chromosome Y: 10 SNPs; {man.sum()} men; all others are missing; {het['Y'][man].sum()} hetero" in log
    assert f"MT: 8 SNPs; everybody has one copy; {het['MT'].sum()} heterozygous genotypes of them are missing" in log
    assert f"WARNING: {(study.sex == 0).sum()} of {N} samples have no sex" in log


def test_a_table_of_sexes(comm, study):
    """It goes before the .fam; who is not in it has no sex."""
    table, other = str(study.folder / "sex.tsv"), np.where(np.arange(N) % 3 == 0, 1, 2)
    other[5] = 0
    words = {1: "M", 2: "f", 0: "NA"}
    lines = ["#IID SEX", *(f"{iid} {words[s]}" for (_, iid), s in list(zip(study.plink.ids, other, strict=True))[:-2])]
    on_root(comm, lambda: write_lines(table, lines))
    out = run(comm, study, "single_trait", sex=table)
    if comm.rank == 0:
        other[-2:] = 0
        G = study.coded(sex=other)
        X = centred(G)
        varies, found = X.any(axis=0), read_results(out, "trait1")["BETA"]
        beta = oracle.scan(H2, oracle.scaled(study.Phi), study.design(False), study.trait(), X[:, varies])[0]
        np.testing.assert_allclose(found[varies], beta, rtol=1e-8, atol=1e-9)
        assert np.isnan(found[~varies]).all()
    comm.Barrier()
    on_root(comm, lambda: write_lines(table, ["FID IID SEX", "F1 F1_1 1", "F1 F1_2 woman"]))
    with pytest.raises(InputError, match=r"sex.tsv, line 3: 'woman' is no sex: write 1 or M, 2 or F, or 0"):
        run(comm, study, "single_trait", sex=table)
    with pytest.raises(UsageError, match="--build must be 37 or 38, not 36"):
        run(comm, study, "single_trait", build=36)


def test_filters_count_by_who_has_the_chromosome(comm, study):
    """Frequencies of haploid and diploid people, missing shares of those who can have it, equilibrium of women."""
    G = study.coded()
    p = study.frequency(G)
    able = np.where(study.plink.chromosomes == "Y", (study.sex == 1).sum(), N)
    missing = 1 - (~np.isnan(G)).sum(axis=0) / able
    out = run(comm, study, "single_trait", maf=0.3, geno=0.05)
    if comm.rank == 0:
        kept = (np.minimum(p, 1 - p) >= 0.3) & (missing <= 0.05)
        assert read_results(out, "trait1")["ID"].tolist() == study.plink.snps[kept].tolist()
        assert {"X", "Y", "MT"} <= set(study.plink.chromosomes[kept])
    # nobody is heterozygous on Y and MT, and hardly any man on X: as pairs of alleles they would all be dropped
    out = run(comm, study, "single_trait", hwe=1e-4)
    if comm.rank == 0:
        assert np.isin(read_results(out, "trait1")["CHR"], ["Y", "MT"]).sum() == 18


@pytest.mark.parametrize("loco", [False, True])
def test_a_kinship_is_of_autosomes_unless_told(comm, study, loco):
    G, autosomal = centred(study.coded()), np.isin(study.plink.chromosomes, ["1", "2"])
    varies = G.any(axis=0)
    for options, used in (
        ({}, autosomal),
        ({"all_chromosomes": True}, np.ones(M, dtype=bool)),
        ({"chr": "2,X,MT"}, np.isin(study.plink.chromosomes, ["2", "X", "MT"])),
    ):
        out = run(comm, study, "kinship", loco=loco, **options)
        X = G[:, used & varies]
        assert read_facts(out)["snps"] == X.shape[1]
        if comm.rank == 0:
            np.testing.assert_allclose(read_kinship(f"{out}.h5"), X @ X.T / X.shape[1], rtol=1e-9, atol=1e-12)
            log = (out.parent / "o.log").read_text()
            assert ("47 dropped by default (X, Y, XY and MT; --all-chromosomes keeps them)" in log) == (not options)


def test_without_autosomes_all_are_taken(comm, study):
    X = str(study.folder / "onlyx")
    chosen = np.flatnonzero(study.plink.chromosomes == "X")

    def write():
        shutil.copy(f"{study.bfile}.fam", f"{X}.fam")
        bim = (study.folder / "g.bim").read_text().splitlines()
        write_lines(f"{X}.bim", [bim[k] for k in chosen])
        write_genotypes(X, study.plink.dosages[:, chosen])

    on_root(comm, write)
    out = run(comm, study, "kinship", bfile=X)
    assert read_facts(out)["snps"] == chosen.size
    assert "there is no autosome, so X, Y, XY and MT are taken" in (out.parent / "o.log").read_text()


def test_men_coded_0_1_are_noticed(comm, study):
    made, G = str(study.folder / "coded"), study.coded()
    man = (study.sex == 1)[:, None] & (study.plink.chromosomes == "X")

    def write():
        for end in ("fam", "bim"):
            shutil.copy(f"{study.bfile}.{end}", f"{made}.{end}")
        write_genotypes(made, np.where(man, G / 2, study.plink.dosages))

    on_root(comm, write)
    out = run(comm, study, "single_trait", bfile=made)
    warned = f"WARNING: {made}.bed: men are coded 0/1 on chromosome X"
    assert warned in (out.parent / "o.log").read_text()


@pytest.mark.parametrize(
    "other", [{"sex": "sex.tsv"}, {"build": 37}, {"x_model": 1}, {"mac": 30}, {"max_maf": 0.4}, {"hwe": 1e-3},
              {"all_chromosomes": True}], ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_stages_of_other_genotypes_are_not_taken(comm, study, other):
    """What G is made of counts for its stages: options of sex, and filters by counts."""
    table = str(study.folder / "sex.tsv")
    on_root(comm, lambda: write_lines(table, ["IID SEX", *(f"{iid} 2" for _, iid in study.plink.ids)]))
    out = run(comm, study, "low_rank", stage=0)
    usual = {"bfile": study.bfile, "out": out, "pheno": study.pheno, "pheno_name": "trait1", "similarity_every": 1}
    other = {name: table if name == "sex" else value for name, value in other.items()}
    with pytest.raises(InputError, match="was made from other inputs or options"):
        mpgls.low_rank(comm=comm, h2=H2, no_loco=True, stage=1, threads=1, **usual, **other)
    comm.Barrier()
    mpgls.low_rank(comm=comm, h2=H2, no_loco=True, stage=1, threads=1, **usual)


def test_samples_without_many_genotypes(comm, study):
    """--mind does not hold against women that they have no Y."""
    out = run(comm, study, "single_trait", mind=0.06)
    shares = np.isnan(study.coded()[:, study.plink.chromosomes != "Y"]).mean(axis=1)
    assert read_facts(out, "trait1")["n"] == (shares <= 0.06).sum() < N
