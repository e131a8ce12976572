"""Permutations of samples keyed by (seed, index), so that any rank, tile or later run makes the same one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def permutation(seed: int, index: int, n: int, blocks: np.ndarray | None = None) -> np.ndarray:
    """Permutation ``index`` of ``n`` samples: int64 (n,); sample k takes the place of sample result[k].

    ``blocks`` (n,) are exchangeability blocks (sites, families): samples move within their own only. Index 0 is the
    identity. The keys are raw output of the counter-based generator Philox 4x64 (Salmon et al., SC 2011), whose stream
    is fixed by its definition; the permutation sorts them, so it is the same with every version of every library.

    Raises ValueError for a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, not {seed} and {index}")
    if index == 0:
        return np.arange(n, dtype=np.int64)
    keys = np.random.Philox(key=np.array([seed, index], dtype=np.uint64)).random_raw(n)
    if blocks is None:
        return np.argsort(keys, kind="stable").astype(np.int64)
    result = np.empty(n, dtype=np.int64)
    # both sorts line up the samples block by block, one in their own order and one in that of the keys
    result[np.argsort(blocks, kind="stable")] = np.lexsort((keys, blocks))
    return result


@dataclass(frozen=True, eq=False)
class Permutations:
    """All permutations of ``n`` samples under one ``seed``, within ``blocks`` (n,) if there are any."""

    seed: int
    n: int
    blocks: np.ndarray | None = None

    def __getitem__(self, index: int) -> np.ndarray:
        """Permutation ``index``, int64 (n,); 0 is the identity."""
        return permutation(self.seed, index, self.n, self.blocks)
