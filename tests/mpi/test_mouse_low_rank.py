"""Real mice: FaST-LMM's low-rank scan with every 12th SNP as similarity SNPs (see tests/data/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mice import needs_mice, places, read_reference, unpack_mice
from ranks import two_ranks
from small_study import read_facts, read_plink, read_results, write_lines

import mpgls

pytestmark = needs_mice


def scan(comm, prefix, out, **options):
    """CD8 with the 1,019 SNPs 0, 12, 24, ... of the .bim, each chromosome left out in turn; its table and facts."""
    mpgls.low_rank(bfile=prefix, out=out, similarity_every=12, threads=1, no_plots=True, comm=comm, **options)
    comm.Barrier()
    results, facts = read_results(out, "pheno"), read_facts(out, "pheno")
    comm.Barrier()
    return results, facts


@two_ranks
@pytest.mark.deadline(240)
def test_fastlmms_heritabilities_p_values_and_effects(comm, shared_tmp_path):
    prefix, h2_file, out = (str(shared_tmp_path / name) for name in ("mouse_hs1940", "h2.tsv", "o"))
    expected = read_reference("mouse_cd8_fastlmm_every12.tsv.gz")
    h2 = dict(zip(expected["CHR"], expected["Nullh2"], strict=True))
    if comm.rank == 0:
        unpack_mice(prefix)
        write_lines(h2_file, ["TRAIT\tCHR\tH2", *(f"pheno\t{c}\t{float(value)!r}" for c, value in h2.items())])
    comm.Barrier()

    results, facts = scan(comm, prefix, out)
    assert (facts["n"], facts["tested"], facts["notes"]) == (1410, 10_992, {"monomorphic": 1234})
    assert {c: model["h2"] for c, model in facts["loco"].items()} == pytest.approx(h2, abs=1e-6)
    order = places(expected["SNP"], results["ID"])
    np.testing.assert_allclose(results["P"][order], expected["PValue"], rtol=1e-5)

    results, facts = scan(comm, prefix, out, h2_file=h2_file)
    assert {c: model["h2"] for c, model in facts["loco"].items()} == h2
    assert "stage 1: taken from" in Path(f"{out}.log").read_text()
    order = places(expected["SNP"], results["ID"])
    np.testing.assert_allclose(results["P"][order], expected["PValue"], rtol=1e-8)
    if comm.rank == 0:
        files = read_plink(prefix)
        dosages = files.dosages[np.isfinite(files.phenotype)][:, places(expected["SNP"], files.snps)]
        scale = np.nanstd(dosages, axis=0)
        np.testing.assert_allclose(results["SE"][order] * scale, expected["SnpWeightSE"], rtol=1e-6)
        effect, least = results["BETA"][order] * scale, expected["SnpWeightSE"].min()
        np.testing.assert_allclose(effect, expected["SnpWeight"], rtol=0, atol=1e-6 * least)
