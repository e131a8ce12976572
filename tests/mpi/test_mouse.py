"""Real mice: GEMMA's kinship, and FaST-LMM's null model, p values and effects (see tests/data/README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mice import needs_mice, places, read_reference, unpack_mice, write_snps_of_gemma
from ranks import few_ranks, two_ranks
from scipy import stats
from small_study import (
    on_root,
    read_columns,
    read_facts,
    read_kinship,
    read_plink,
    read_results,
    write_lines,
    write_table,
)

import mpgls

FASTLMM = "mouse_cd8_fastlmm.tsv.gz"
FASTLMM_H2 = 0.6097627448019252

pytestmark = needs_mice


@dataclass(frozen=True)
class Mice:
    """The unpacked files, and the kinship that mpgls made of GEMMA's SNPs."""

    prefix: str
    grm: str
    tested: str


@pytest.fixture(scope="module")
def mice(module_comm, module_folder):
    """One kinship for all tests here: it is the dear part."""
    prefix, snps, tested = (str(module_folder / name) for name in ("mouse_hs1940", "snps.txt", "tested.txt"))

    def write():
        unpack_mice(prefix)
        write_snps_of_gemma(snps)
        write_lines(tested, list(read_reference(FASTLMM)["SNP"]))

    on_root(module_comm, write)
    mpgls.kinship(bfile=prefix, extract=snps, out=module_folder / "K", threads=1, comm=module_comm)
    return Mice(prefix, str(module_folder / "K.h5"), tested)


def scan(comm, mice, out, **options):
    study = {"bfile": mice.prefix, "grm": mice.grm, "extract": mice.tested, **options}
    mpgls.single_trait(out=out, threads=1, no_plots=True, comm=comm, **study)
    comm.Barrier()


@few_ranks
def test_gemmas_kinship(comm, mice):
    if comm.rank == 0:
        K = read_kinship(mice.grm)
        figures = [np.trace(K) / 1940, np.linalg.norm(K), K[0, 0], K[0, 1], K[1000, 3]]
        expected = [0.35967545, 72.773113, 0.3350989657, -0.02268574573, -0.02318727948]
        np.testing.assert_allclose(figures, expected, rtol=1e-6)
        v = np.ones(1940)
        for _ in range(30):
            v = K @ v
            v /= np.linalg.norm(v)
        assert v @ K @ v == pytest.approx(37.647786, rel=1e-6)


@few_ranks
def test_fastlmms_heritability(comm, shared_tmp_path, mice):
    scan(comm, mice, shared_tmp_path / "o")
    facts = read_facts(shared_tmp_path / "o", "pheno")
    assert facts["n"] == 1410
    assert facts["h2"] == pytest.approx(FASTLMM_H2, abs=1e-6)
    assert facts["log_likelihood"] == pytest.approx(-1584.07, abs=0.01)  # GEMMA's REMLE log-likelihood


@pytest.mark.parametrize("precision, tolerance", [("double", 1e-8), ("mixed", 1e-3)])
def test_fastlmms_p_values_and_effects(comm, shared_tmp_path, mice, precision, tolerance):
    scan(comm, mice, shared_tmp_path / "o", h2=FASTLMM_H2, precision=precision)
    if comm.rank == 0:
        results, expected = read_results(shared_tmp_path / "o", "pheno"), read_reference(FASTLMM)
        order = places(expected["SNP"], results["ID"])
        np.testing.assert_allclose(results["P"][order], expected["PValue"], rtol=tolerance)

        files = read_plink(mice.prefix)
        X = files.centred(np.isfinite(files.phenotype))[:, places(expected["SNP"], files.snps)]
        scale = X.std(axis=0)
        effect = results["BETA"][order] * scale
        np.testing.assert_allclose(
            effect, expected["SnpWeight"], rtol=0, atol=tolerance * expected["SnpWeightSE"].min()
        )
        np.testing.assert_allclose(results["SE"][order] * scale, expected["SnpWeightSE"], rtol=tolerance)


def assert_gemmas(found, expected, mean_diagonal):
    """GEMMA ends its search at a relative change of 1e-5 in lambda, which moves its p by up to 1e-4."""
    order = places(expected["SNP"], found["ID"])
    sign = np.where(found["EA"][order] == expected["allele1"], 1.0, -1.0)
    for name, theirs, tolerance in (
        ("P", "p_wald", 1e-4), ("P_LRT", "p_lrt", 1e-6), ("P_SCORE", "p_score", 1e-6), ("SE", "se", 2e-6),
    ):  # fmt: skip
        np.testing.assert_allclose(found[name][order], expected[theirs], rtol=tolerance, err_msg=name)
    np.testing.assert_allclose(found["BETA"][order] * sign, expected["beta"], rtol=1e-5, atol=1e-6)
    # lambda is of the kinship as it is, h2 of the kinship divided by its mean diagonal after centring
    ratio = found["H2"][order] / (1.0 - found["H2"][order])
    np.testing.assert_allclose(ratio, expected["l_remle"] * mean_diagonal, rtol=2e-5)


@two_ranks
def test_gemmas_p_values_with_a_ratio_for_each_snp(comm, shared_tmp_path, mice):
    expected, tested = read_reference("mouse_cd8_gemma.tsv.gz"), str(shared_tmp_path / "gemma.txt")
    on_root(comm, lambda: write_lines(tested, list(expected["SNP"])))
    scan(comm, mice, shared_tmp_path / "o", extract=tested, ratio="snp", test="all", center_grm=True)
    if comm.rank == 0:
        assert_gemmas(read_results(shared_tmp_path / "o", "pheno"), expected, 0.3596171)


@two_ranks
def test_gemmas_p_values_with_a_ratio_for_each_pair(comm, shared_tmp_path, mice):
    """MCH, by multi-trait, of which every pair is fitted anew."""
    expected, tested, pheno = read_reference("mouse_mch_gemma.tsv.gz"), shared_tmp_path / "gemma.txt", "mch.tsv"

    def write():
        write_lines(tested, list(expected["SNP"]))
        fam = [line.split() for line in Path(f"{mice.prefix}.fam").read_text().splitlines()]
        values = np.array([np.nan if row[10] in ("NA", "-9") else float(row[10]) for row in fam])
        write_table(shared_tmp_path / pheno, [(row[0], row[1]) for row in fam], {"MCH": values})

    on_root(comm, write)
    study = {"bfile": mice.prefix, "grm": mice.grm, "extract": str(tested), "pheno": str(shared_tmp_path / pheno)}
    of_pairs = {"ratio": "snp", "test": "all", "center_grm": True, "p_threshold": 1.0, "refit_p": 1.0}
    mpgls.multi_trait(out=shared_tmp_path / "o", threads=1, no_plots=True, comm=comm, **study, **of_pairs)
    if comm.rank == 0:
        text = ("CHR", "ID", "EA", "NEA", "TRAIT")
        columns = read_columns(shared_tmp_path / "o.hits.tsv")
        found = {name: np.array(values, dtype=None if name in text else float) for name, values in columns.items()}
        assert_gemmas(found, expected, 0.3605271)
        order = places(expected["SNP"], found["ID"])
        np.testing.assert_allclose(found["LOGL"][order], expected["logl_remle"], rtol=0, atol=6e-4)  # 7 digits
        gain = 0.5 * stats.chi2.isf(found["P_LRT"][order], 1)
        np.testing.assert_allclose(expected["logl_H1"] - gain, -1972.5305, rtol=0, atol=6e-4)  # its likelihood without


@two_ranks
@pytest.mark.deadline(300)
def test_fastlmm_with_one_chromosome_left_out(comm, shared_tmp_path, mice):
    """FaST-LMM's conventions: SNPs standardised over the mice that have the trait, and K made of them alone."""
    expected = read_reference("mouse_cd8_fastlmm_loco.tsv.gz")
    keep, tested, given = (str(shared_tmp_path / name) for name in ("keep.txt", "tested.txt", "h2.tsv"))
    null_h2 = dict(zip(expected["Chr"].tolist(), expected["Nullh2"].tolist(), strict=True))
    if comm.rank == 0:
        files = read_plink(mice.prefix)
        write_lines(keep, [name for name, y in zip(files.ids, files.phenotype, strict=True) if np.isfinite(y)])
        write_lines(tested, list(expected["SNP"]))
        write_lines(given, ["TRAIT\tCHR\tH2", *(f"pheno\t{label}\t{float(h2)!r}" for label, h2 in null_h2.items())])
    comm.Barrier()
    of_kinship = {"method": "standardized", "loco": True, "out": shared_tmp_path / "K", "threads": 1}
    mpgls.kinship(bfile=mice.prefix, keep=keep, comm=comm, **of_kinship)

    def scan_without(out, **options):
        study = {"bfile": mice.prefix, "grm": shared_tmp_path / "K.h5", "extract": tested, "loco": True}
        mpgls.single_trait(out=out, threads=1, no_plots=True, comm=comm, **study, **options)
        comm.Barrier()
        return read_facts(out, "pheno")["loco"]

    some = ["1", "3", "10", "17", "19"]  # the most different ones; REML of all 19 takes too long for a test
    nulls = scan_without(shared_tmp_path / "o", chr=",".join(some))
    assert list(nulls) == some
    for label, null in nulls.items():
        assert null["h2"] == pytest.approx(null_h2[label], abs=1e-6), label

    assert len(scan_without(shared_tmp_path / "given", h2_file=given)) == 19
    if comm.rank == 0:
        results = read_results(shared_tmp_path / "given", "pheno")
        order = places(expected["SNP"], results["ID"])
        np.testing.assert_allclose(results["P"][order], expected["PValue"], rtol=1e-8)
