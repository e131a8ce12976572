"""The SNPs where mpgls and GEMMA differ most, and the REML optimum in extended precision that says who is right.

Sums and search are in np.longdouble, over the eigenvectors in float64: the slope of the likelihood in log lambda
(lambda = vg / ve, as GEMMA has it) is bisected until no number lies between. Nothing of mpgls is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import finish, guarded, make_parser, print_table

ENDS = 1e-5, 1e5
"""Between them GEMMA looks for lambda."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--bfile", required=True, help="PLINK files that GEMMA read")
    parser.add_argument("--trait", type=int, default=1, help="the trait as GEMMA's -n counts it (1)")
    parser.add_argument("--kinship", required=True, help="GEMMA's .cXX.txt")
    parser.add_argument("--assoc", required=True, type=Path, help="GEMMA's .assoc.txt")
    parser.add_argument("--table", required=True, type=Path, help="table of mpgls single-trait --ratio snp")
    parser.add_argument("--count", type=int, default=5, help="SNPs (5)")
    options = parser.parse_args()

    gemma, mine = read_p(options.assoc, "rs", "p_wald"), read_p(options.table, "ID", "P")
    farthest = sorted(gemma, key=lambda snp: -abs(mine[snp] / gemma[snp] - 1.0))[: options.count]
    model = Model.of(Path(options.bfile), options.trait, options.kinship)
    rows = []
    for snp in farthest:
        p = model.p_at_optimum(snp)
        rows.append((snp, f"{p:.10e}", gemma[snp] / p - 1.0, mine[snp] / p - 1.0))
    shown = [(snp, p, f"{theirs:+.1e}", f"{ours:+.1e}") for snp, p, theirs, ours in rows]
    print_table(("SNP", "p at the optimum", "GEMMA's over it - 1", "mpgls's over it - 1"), shown)
    results = {"snps": len(gemma), "gemma_from_optimum": max(abs(row[2]) for row in rows)}
    finish(results | {"mpgls_from_optimum": max(abs(row[3]) for row in rows)}, options.json)


def read_p(path: Path, key: str, column: str) -> dict[str, float]:
    """A p value of each SNP."""
    header, *rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = ((row[header.index(key)], row[header.index(column)]) for row in rows)
    return {snp: float(p) for snp, p in pairs if p != "NA"}


@dataclass(frozen=True, eq=False)
class Model:
    """The trait y~ and the intercept in the eigenbasis of the centred kinship, and the packed genotypes."""

    lam: np.ndarray
    Zt: np.ndarray
    y: np.ndarray
    present: np.ndarray
    packed: np.ndarray
    row: dict[str, int]

    @classmethod
    def of(cls, prefix: Path, trait: int, kinship: str) -> Model:
        texts = (Path(f"{prefix}.{kind}").read_text(encoding="utf-8") for kind in ("fam", "bim"))
        fam, bim = ([line.split() for line in text.splitlines()] for text in texts)
        values = np.array([line[4 + trait] for line in fam])
        present = ~np.isin(values, ("NA", "-9"))
        K = np.loadtxt(kinship)[np.ix_(present, present)]
        lam, Z = np.linalg.eigh(K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean())
        Zt = Z.T.astype(np.longdouble)
        packed = np.fromfile(f"{prefix}.bed", dtype=np.uint8)[3:].reshape(len(bim), -1)
        row = {line[1]: k for k, line in enumerate(bim)}
        y = Zt @ values[present].astype(np.longdouble)
        return cls(np.maximum(lam, 0).astype(np.longdouble), Zt, y, present, packed, row)

    def genotypes(self, snp: str) -> np.ndarray:
        """Of the samples with the trait; a missing one is the mean."""
        codes = (self.packed[self.row[snp]][:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & 3
        x = np.array([2.0, np.nan, 1.0, 0.0])[codes.ravel()[: self.present.size][self.present]]
        return np.where(np.isnan(x), np.nanmean(x), x).astype(np.longdouble)

    def p_at_optimum(self, snp: str) -> float:
        """Of the t test, n - 2 degrees of freedom."""
        from scipy import stats

        ones = np.ones(self.y.size, dtype=np.longdouble)
        X = np.column_stack([self.Zt @ ones, self.Zt @ self.genotypes(snp)])
        low, high = np.log(np.array(ENDS, dtype=np.longdouble))
        while low < (middle := (low + high) / 2) < high:
            low, high = (middle, high) if self._fit(X, middle)[0] > 0 else (low, middle)
        return float(2.0 * stats.t.sf(abs(float(self._fit(X, low)[1])), self.y.size - 2))

    def _fit(self, X: np.ndarray, log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slope of the REML log-likelihood in log lambda, and t."""
        growth = np.exp(log_ratio) * self.lam
        w = 1 / (growth + 1)
        S = X.T @ (X * w[:, None])
        inverse = np.array([[S[1, 1], -S[0, 1]], [-S[0, 1], S[0, 0]]]) / (S[0, 0] * S[1, 1] - S[0, 1] ** 2)
        beta = inverse @ (X.T @ (self.y * w))
        e, share, df = self.y - X @ beta, growth * w, self.y.size - 2
        rss = e @ (e * w)
        trace = share.sum() - np.sum(inverse * (X.T @ (X * (w * share)[:, None])))
        return df * (e @ (e * w * share)) / rss - trace, beta[1] / np.sqrt(rss / df * inverse[1, 1])


if __name__ == "__main__":
    guarded(main)
