"""K = X X' / m for mpgls ridge, the same on every number of ranks to the last bit.

The lower triangle is cut into tiles of a fixed size that are dealt to ranks. Every rank decodes every block of SNPs and
adds the products of its own tiles, so that each element is the same sum in the same order whoever computes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.kinship import every_block
from mpgls.errors import InputError
from mpgls.la.shared import SharedArray
from mpgls.mpi import agree
from mpgls.run.log import Progress
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import Decoder

if TYPE_CHECKING:
    from mpi4py import MPI

TILE = 512
"""Rows and columns of a tile of K."""


class KernelTiles:
    """This rank's tiles of the lower triangle of an n x n matrix."""

    def __init__(self, n: int, comm: MPI.Comm) -> None:
        self.n, self.comm = n, comm
        edges = [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
        self.places = [(rows, cols) for i, rows in enumerate(edges) for cols in edges[: i + 1]]
        self.mine = {
            k: np.zeros((rows.stop - rows.start, cols.stop - cols.start))
            for k, (rows, cols) in enumerate(self.places)
            if k % comm.size == comm.rank
        }

    def add(self, X: np.ndarray) -> float:
        """K += X X' for X (n, B); returns the operations of this rank."""
        for k, tile in self.mine.items():
            rows, cols = self.places[k]
            tile += X[rows] @ X[cols].T
        return 2.0 * X.shape[1] * sum(tile.size for tile in self.mine.values())

    def share(self, K: SharedArray, divisor: float) -> None:
        """Bring all tiles to every node, divided: both triangles of ``K``. Collective."""
        for k, (rows, cols) in enumerate(self.places):
            tile = self.mine.get(k)
            if tile is None:
                tile = np.empty((rows.stop - rows.start, cols.stop - cols.start))
            self.comm.Bcast(tile, root=k % self.comm.size)
            if K.comm.rank == 0:
                K.array[rows, cols] = tile / divisor
                K.array[cols, rows] = K.array[rows, cols].T
        K.fence()


def genotype_kernel(
    K: SharedArray,
    study: Study,
    rows: np.ndarray,
    filters: SnpFilter,
    block: int,
    session: Session,
    training: np.ndarray | None = None,
    divisor: int | None = None,
) -> int:
    """Fill ``K`` (n, n) with X X' / m over the .fam rows ``rows``; returns m, the SNPs that vary.

    Collective. X has mean 0 and variance 1 over the samples, or over those at the positions ``training`` among them;
    missing genotypes have the mean. ``divisor`` is used instead of m. Raises InputError when no SNP is left.
    """
    comm, timings, bed = session.comm, session.timings, study.fileset.bed
    index = comm.bcast(study.selection.index if study.selection is not None else None, root=0)
    everyone = Decoder(bed.n, [rows], np.float64)
    counted = everyone if training is None else Decoder(bed.n, [rows[training]], np.float64)
    tiles = KernelTiles(rows.size, comm)
    X_block = np.empty((rows.size, block), order="F")
    progress = Progress(session.log, "kernel", index.size, "SNPs")
    used = done = 0
    blocks = [index[start : start + block] for start in range(0, index.size, block)]
    for packed in every_block(study, blocks, comm, session) if blocks else ():
        with timings.phase("decode", nbytes=packed.size):
            X = X_block[:, : packed.shape[0]]
            stats = everyone.stats(packed)
            wanted = passes(stats, filters) & ~stats.monomorphic
            own = stats if training is None else counted.stats(packed)
            everyone.decode(packed, [X], stats, shift=own.mean)
            wanted_here = wanted & ~own.monomorphic
            X *= np.divide(1.0, np.sqrt(own.variance), out=np.zeros(X.shape[1]), where=wanted_here)
            used += int(wanted.sum())
        with timings.phase("kernel") as product:
            product.flop += tiles.add(X)
        done += packed.shape[0]
        progress.at(done)
    if used == 0:
        raise InputError("no SNP is left after the filters: the kernel would be empty")
    with timings.phase("share kernel"):
        tiles.share(K, divisor or used)
    return used


def given_kernel(K: SharedArray, study: Study, index: np.ndarray, session: Session) -> float:
    """Fill ``K`` from the kinship of the study, divided by its mean diagonal, which is returned. Collective.

    Raises InputError if that is not positive.
    """
    kinship, n, error = study.kinship, index.size, None
    assert kinship is not None
    mean = 0.0
    with session.timings.phase("load kinship") as loading:
        if K.comm.rank == 0:
            try:
                target = np.full(kinship.n, -1, dtype=np.int64)
                target[index] = np.arange(n)
                for start in range(0, kinship.n, TILE):
                    place = target[start : start + TILE]
                    found = kinship.rows(start, min(start + TILE, kinship.n))
                    K.array[:, place[place >= 0]] = found[place >= 0][:, index].T
                    loading.nbytes += found.nbytes
                mean = _finish(K.array, kinship.packed_lower, index)
            except Exception as caught:
                error = caught
        agree(session.comm, error)
        K.fence()
    return float(session.comm.bcast(mean, root=0))


def _finish(K: np.ndarray, lower: bool, index: np.ndarray) -> float:
    """Mirror a triangle, scale to mean diagonal 1; returns the mean before."""
    if lower:
        # of each pair one place holds the number and the other, right of the file's diagonal, zero
        diagonal = K.diagonal().copy()
        for start in range(0, len(index), TILE):
            strip = slice(start, start + TILE)
            both = K[start:, strip] + K[strip, start:].T
            K[start:, strip], K[strip, start:] = both, both.T
        K[np.diag_indices_from(K)] = diagonal
    mean = float(K.diagonal().mean())
    if not mean > 0:
        raise InputError(f"the kinship's mean diagonal over the analysed samples is {mean:.6g}, not positive")
    K /= mean
    return mean
