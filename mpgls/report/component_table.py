"""Principal components as a table that every command takes as --covar: ``FID IID PC1 PC2 ...``."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from mpgls.stream.files import write_text

COMPONENT_BYTES = 22
"""Of a number in the table, about."""


def write_components(path: str | os.PathLike[str], ids: Sequence[tuple[str, str]], Z_rep: np.ndarray) -> None:
    """Write eigenvectors (n, k), one column each, whose digits read back to the same float64. Call on one rank.

    Raises StorageError.
    """
    header = ["FID", "IID", *(f"PC{i + 1}" for i in range(Z_rep.shape[1]))]
    rows = ([fid, iid, *(f"{value:.17g}" for value in row)] for (fid, iid), row in zip(ids, Z_rep, strict=True))
    write_text(path, ("\t".join(row) + "\n" for row in (header, *rows)))
