"""The tables of predicted values, tab-separated; numbers have the shortest digits that read back the same.

``PREFIX.scores.tsv``: ``FID IID`` and a column for each trait, as --pheno takes it. ``PREFIX.fit.tsv``:
``TRAIT N R R2``, of those who have the trait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mpgls.model.prediction_fit import PredictionFit
from mpgls.report.ridge_table import number
from mpgls.stream.files import write_text
from mpgls.study.tables import SampleId


def write_scores(path: Path, ids: Sequence[SampleId], names: Sequence[str], scores: np.ndarray) -> None:
    """Write ``scores`` (n, t) of the people ``ids`` for the traits ``names``; on one rank. Raises StorageError."""

    def lines() -> Iterator[str]:
        yield "\t".join(["FID", "IID", *names]) + "\n"
        for sample, row in zip(ids, scores.tolist(), strict=True):
            yield "\t".join([*sample, *map(repr, row)]) + "\n"

    write_text(path, lines())


def write_fit(path: Path, fits: Mapping[str, PredictionFit]) -> None:
    """Write how well each trait is predicted; on one rank. Raises StorageError."""
    rows = (f"{name}\t{fit.n}\t{number(fit.r)}\t{number(fit.r2)}\n" for name, fit in fits.items())
    write_text(path, ["TRAIT\tN\tR\tR2\n", *rows])
