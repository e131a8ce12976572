"""FaST-LMM's single_snp from files to a table of p values; peers.py runs it in FaST-LMM's own environment.

    python fastlmm_scan.py BFILE KINSHIP.npz PHENO SNPS COVAR|- OUT.tsv

KINSHIP.npz is a pysnptools KernelNpz, PHENO and COVAR are tables without header (FID IID value ...), SNPS the .bim
rows to test as .npy. h2 is estimated once, from the model without a SNP, by REML.
"""

from __future__ import annotations

import logging
import sys

import numpy as np
from fastlmm.association import single_snp
from pysnptools.kernelreader import KernelNpz
from pysnptools.snpreader import Bed, Pheno


def main() -> None:
    bfile, kinship, pheno, snps, covar, out = sys.argv[1:]
    logging.getLogger().setLevel(logging.WARNING)
    index = np.load(snps)
    bed = Bed(bfile, count_A1=True)
    results = single_snp(
        test_snps=bed if index.size == bed.sid_count else bed[:, index],
        pheno=Pheno(pheno),
        K0=KernelNpz(kinship),
        covar=None if covar == "-" else Pheno(covar),
        leave_out_one_chrom=False,
        count_A1=True,
    )
    results[["SNP", "PValue", "Nullh2"]].to_csv(out, sep="\t", index=False)


if __name__ == "__main__":
    main()
