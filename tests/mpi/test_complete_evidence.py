"""A SNP that explains a trait completely has SE 0, -log10 p infinite, is the best SNP, and harms nothing beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from ranks import few_ranks
from small_study import on_root, read_columns, read_facts, read_plink, read_results, read_rows, write_lines, write_table

import mpgls
from mpgls.errors import NumericalError

pytestmark = few_ranks

N, M, SNP = 83, 60, 25
EFFECT = {"mendel": 3.0, "far": -2.0}
"""The traits that SNP 25 explains, the second beside a covariate and with a mean of a million."""
BETA = {"double": 1e-8, "mixed": 1e-4}
INFINITE = {"SE": "0.0", "LOG10P": "inf", "P": "0.0000000000e+00", "NOTE": "."}


@dataclass(frozen=True)
class Files:
    folder: Path
    traits: dict[str, np.ndarray]

    def path(self, name):
        return str(self.folder / name)


@pytest.fixture(scope="module")
def files(module_comm, module_folder):
    prefix = str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, chromosomes=3, traits=1, out=prefix, seed=4, comm=module_comm)
    mpgls.kinship(bfile=prefix, out=module_folder / "K", loco=True, comm=module_comm)
    plink = read_plink(prefix)
    x, rng = plink.dosages[:, SNP], np.random.default_rng(1)
    c = rng.normal(size=N)
    traits = {"mendel": 1 + 3 * x, "other": 0.5 * plink.centred()[:, :9] @ rng.normal(size=9) + rng.normal(size=N)}
    traits["far"] = 1e6 - 2 * x + c

    def write():
        write_table(module_folder / "p.tsv", plink.ids, traits)
        write_table(module_folder / "other.tsv", plink.ids, {"other": traits["other"]})
        write_table(module_folder / "c.tsv", plink.ids, {"c": c})
        places = [f"{name}\t{k}\t0\t0" for k, name in enumerate(traits)]
        write_lines(module_folder / "ijk.tsv", ["TRAIT\tI\tJ\tK", *places])

    on_root(module_comm, write)
    return Files(module_folder, traits)


def run(comm, files, command, out, pheno="p.tsv", **options):
    usual = {"bfile": files.path("g"), "pheno": files.path(pheno), "covar": files.path("c.tsv"), "threads": 1}
    out = files.path(f"{out}-{command.__name__}")  # a prefix belongs to one command
    command(out=out, comm=comm, **usual | options)
    comm.Barrier()
    return out


def row(prefix, trait):
    """The row of the SNP in a table of results."""
    name = f"{prefix}.{trait}.tsv"
    return read_rows(name)[SNP]


def scan(comm, files, kind, out, **options):
    if kind == "low-rank":
        return run(comm, files, mpgls.low_rank, out, similarity_every=2, form="low-rank", **options)
    return run(comm, files, mpgls.single_trait, out, grm=files.path("K.h5"), loco=True, **options)


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize("kind", ["single-trait", "low-rank"])
def test_one_trait_after_the_other(comm, files, kind, precision):
    prefix = scan(comm, files, kind, "s", pheno_name=("mendel", "other", "far"), precision=precision)
    alone = scan(comm, files, kind, "alone", pheno="other.tsv", precision=precision, no_plots=True)
    if comm.rank > 0:
        return
    for trait, effect in EFFECT.items():
        found = row(prefix, trait)
        assert {name: found[name] for name in INFINITE} == INFINITE
        assert float(found["BETA"]) == pytest.approx(effect, rel=BETA[precision])
        assert float(found["STAT"]) == np.inf * np.sign(effect)
        best = read_facts(prefix, trait)["top"][0]
        assert best["id"] == found["ID"] and best["log10p"] == "inf" and best["se"] == 0.0
        assert all(Path(f"{prefix}.{trait}.{kind}.png").stat().st_size > 10_000 for kind in ("manhattan", "qq"))
    right, beside = read_results(alone, "other"), read_results(prefix, "other")
    for name in ("BETA", "SE", "LOG10P"):
        np.testing.assert_allclose(beside[name], right[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["single-trait", "low-rank"])
def test_wald_keeps_the_variance_of_the_null_model(comm, files, kind):
    prefix = scan(comm, files, kind, "w", pheno_name=tuple(EFFECT), test="wald", no_plots=True)
    if comm.rank == 0:
        for trait, effect in EFFECT.items():  # z^2 = (r^2/d) / (rss / (n-q)), and r^2/d = rss
            z = float(row(prefix, trait)["STAT"])
            assert z == pytest.approx(np.sign(effect) * np.sqrt(N - 2), rel=1e-7)


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_many_traits_at_once(comm, files, precision):
    prefix = run(
        comm, files, mpgls.multi_trait, "m", grm=files.path("K.h5"), dense=True, p_threshold=0.01, precision=precision
    )
    for trait in EFFECT:
        mpgls.export(store=f"{prefix}.h5", trait=(trait,), out=files.path(f"e.{trait}"), comm=comm)
    if comm.rank > 0:
        return
    hits, traits = read_rows(f"{prefix}.hits.tsv"), {one["TRAIT"]: one for one in read_rows(f"{prefix}.traits.tsv")}
    for trait, effect in EFFECT.items():
        exported = row(files.path("e"), trait)
        (hit,) = (one for one in hits if one["TRAIT"] == trait and one["ID"] == exported["ID"])
        assert [hit[name] for name in ("SE", "LOG10P", "P")] == ["0.0", "inf", "0.0000000000e+00"]
        assert {name: exported[name] for name in INFINITE} == INFINITE
        for one in (hit, exported):
            assert float(one["BETA"]) == pytest.approx(effect, rel=1e-6 if precision == "double" else 1e-4)
        best = traits[trait]
        assert (best["BEST_SNP"], best["LOG10P_MAX"], best["MIN_P"]) == (hit["ID"], "inf", "0.0000000000e+00")
        assert best["TESTED"] == str(M)
    assert float(traits["other"]["LOG10P_MAX"]) < 10
    with h5py.File(f"{prefix}.histograms.h5") as file:
        counted = [file[f"{name}/counts"][...].sum() for name in file]
    assert sum(counted) == 3 * M
    assert all(Path(f"{prefix}.{kind}.png").stat().st_size > 10_000 for kind in ("hits", "qq"))


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_voxels_with_permutations(comm, files, precision):
    prefix = run(
        comm, files, mpgls.vgwas, "v", coordinates=files.path("ijk.tsv"), sparsity_threshold=0.05, permutations=19,
        precision=precision,
    )  # fmt: skip
    if comm.rank == 0:
        columns = read_columns(f"{prefix}.snps.tsv")
        best = {name: values[SNP] for name, values in columns.items()}
        assert best["T"] in ("inf", "-inf") and best["LOG10P"] == best["SUM_LOG10P"] == best["CLUSTER_MASS"] == "inf"
        assert float(best["FWE_P_LOG10P"]) == float(best["FWE_P_CLUSTER_MASS"]) == 1 / 20
        assert np.isfinite(float(best["TFCE"]))
        others = [float(value) for k, value in enumerate(columns["LOG10P"]) if value != "NA" and k != SNP]
        assert np.isfinite(others).all()
        assert Path(f"{prefix}.null.log10p.png").stat().st_size > 10_000


def test_a_low_rank_model_that_float32_cannot_hold_is_refused(comm, files):
    """The SNP is one of the similarity SNPs: h2 is 1 - 1e-6, and float32 has no digit of 1/(1-h2) left."""
    options = {"similarity_every": 1, "no_loco": True, "form": "low-rank", "no_plots": True}
    with pytest.raises(NumericalError, match=r"standard errors.*needs --precision double"):
        run(comm, files, mpgls.low_rank, "n", pheno_name="mendel", precision="mixed", **options)
    prefix = run(comm, files, mpgls.low_rank, "n", pheno_name="mendel", **options)
    if comm.rank == 0:
        assert float(row(prefix, "mendel")["BETA"]) == pytest.approx(3.0, rel=1e-6)
