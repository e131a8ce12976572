"""What is counted of a SNP over the analysed samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-13
"""Share of a sum of squares up to which a difference of such sums is none."""


@dataclass(frozen=True, eq=False)
class AlleleCounts:
    """Of B SNPs of which not everybody has two copies, (B,) each: what cannot be told from sums of x."""

    copies: np.ndarray
    """Copies of A1."""
    chromosomes: np.ndarray
    """Copies of A1 and A2 together."""
    able: np.ndarray
    """Analysed samples that have the chromosome, missing genotypes included."""
    genotypes: tuple[np.ndarray, np.ndarray, np.ndarray]
    """People who have two copies: how many have A1 twice, once, and not at all."""


@dataclass(frozen=True, eq=False)
class ColumnSums:
    """Of B SNPs whose columns are no copies, (B,) each over the observed genotypes: sums of the columns' numbers."""

    total: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True, eq=False)
class SnpStats:
    """Counts of a block of B SNPs over the ``n`` analysed samples; x is the number of copies of A1, or its dosage.

    The column of a SNP in the model is x, or what a `Coding` makes of it.
    """

    n_obs: np.ndarray
    """(B,) int32: samples whose genotype is not missing."""
    a1_sum: np.ndarray
    """(B,) float64: sum of x over them."""
    sum_sq: np.ndarray
    """(B,) float64: sum of x squared over them."""
    n: int
    """Analysed samples, missing genotypes included."""
    alleles: AlleleCounts | None = None
    """Where not everybody has two copies of all SNPs."""
    column: ColumnSums | None = None
    """Where the columns are not x."""

    @property
    def mean(self) -> np.ndarray:
        """(B,) mean of the column over the observed genotypes; 0 where there are none."""
        return (self.a1_sum if self.column is None else self.column.total) / np.maximum(self.n_obs, 1)

    @property
    def eaf(self) -> np.ndarray:
        """(B,) frequency of A1 among the observed genotypes; NaN where there are none."""
        return np.divide(self.copies, self.chromosomes, out=np.full(self.n_obs.size, np.nan), where=self.n_obs > 0)

    @property
    def copies(self) -> np.ndarray:
        """(B,) copies of A1 in the observed genotypes."""
        return self.a1_sum if self.alleles is None else self.alleles.copies

    @property
    def chromosomes(self) -> np.ndarray:
        """(B,) copies of both alleles in the observed genotypes."""
        return 2.0 * self.n_obs if self.alleles is None else self.alleles.chromosomes

    @property
    def able(self) -> int | np.ndarray:
        """Analysed samples that have the chromosome, the same for all SNPs or (B,)."""
        return self.n if self.alleles is None else self.alleles.able

    @property
    def monomorphic(self) -> np.ndarray:
        """(B,) bool: the column has the same number for all observed genotypes, if there are any."""
        return self._column_scatter() == 0

    @property
    def one_genotype(self) -> np.ndarray:
        """(B,) bool: the observed genotypes, if any, are all the same, whatever the column is."""
        return self._scatter() == 0

    @property
    def genotypes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B,) int64 each: samples with two copies of A1, with one and with none; of those who have two copies."""
        if self.alleles is not None:
            return self.alleles.genotypes
        one = np.rint(2 * self.a1_sum - self.sum_sq).astype(np.int64)
        two = np.rint(self.sum_sq - self.a1_sum).astype(np.int64) // 2
        return two, one, self.n_obs - one - two

    @property
    def variance(self) -> np.ndarray:
        """(B,) sum over the observed genotypes of (column - mean)^2, over n: mean imputation adds nothing to it."""
        return self._column_scatter() / np.maximum(self.n_obs, 1) / max(self.n, 1)

    @property
    def info(self) -> np.ndarray:
        """(B,) variance of x over that of Hardy and Weinberg, 2 p (1-p).

        NaN where x does not vary, and where not everybody has two copies.

        Of dosages it is MaCH's r2: the share of the genotypes' variance that imputation kept (Li et al., Genetic
        Epidemiology 34, 2010).
        """
        scatter, mean = self._scatter(), self.a1_sum / np.maximum(self.n_obs, 1)
        of_genotypes = mean * (1.0 - mean / 2.0) * np.square(self.n_obs, dtype=np.float64)
        known = (scatter > 0) & (self.chromosomes == 2 * self.n_obs)
        return np.divide(scatter, of_genotypes, out=np.full(scatter.shape, np.nan), where=known)

    def _scatter(self) -> np.ndarray:
        """(B,) that of x."""
        return _scatter(self.n_obs, self.a1_sum, self.sum_sq)

    def _column_scatter(self) -> np.ndarray:
        """(B,) that of the column."""
        return self._scatter() if self.column is None else _scatter(self.n_obs, self.column.total, self.column.squares)


def _scatter(n_obs: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(B,) n_obs squares - total^2. Of genotypes it is a whole number, so nothing cancels."""
    largest = n_obs * squares
    scatter = largest - total**2
    # of genotypes that vary it is at least 1/(4n) of the largest term; of dosages less than this is rounding
    return np.where(scatter > ROUNDING * largest, scatter, 0.0)
