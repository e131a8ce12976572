"""FaST-LMM's single_snp_scale from files to a table of p values; low_rank.py runs it in FaST-LMM's own environment.

    python fastlmm_scale.py BFILE PHENO EVERY COVAR CACHE OUT.tsv

PHENO and COVAR are tables without header (FID IID value ...); every EVERY-th SNP of BFILE measures similarity. CACHE is
a folder for the files between the stages; it should not be there before, or its stages are not computed.
"""

from __future__ import annotations

import logging
import sys

from fastlmm.association import single_snp_scale
from pysnptools.snpreader import Bed, Pheno


def main() -> None:
    bfile, pheno, every, covar, cache, out = sys.argv[1:]
    logging.getLogger().setLevel(logging.WARNING)
    bed = Bed(bfile, count_A1=True)
    results = single_snp_scale(
        test_snps=bed,
        pheno=Pheno(pheno),
        G0=bed[:, :: int(every)],
        covar=Pheno(covar),
        cache=cache,
        count_A1=True,
    )
    results["Chr"] = results["Chr"].astype(int)
    results[["SNP", "Chr", "PValue", "Nullh2"]].to_csv(out, sep="\t", index=False)


if __name__ == "__main__":
    main()
