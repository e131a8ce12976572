"""The kernel K = X X' / m of ridge regression, the same on every number of ranks to the last bit.

The lower triangle is cut into tiles of a fixed size that are dealt to ranks. Every rank decodes every block of SNPs and
adds the products of its own tiles, so that each element is the same sum in the same order whoever computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kinship_grid import refuse_asymmetry, refuse_mean_diagonal
from mpgls.errors import InputError
from mpgls.la.shared import SharedArray
from mpgls.run.world import World
from mpgls.study.count_filters import Dropped
from mpgls.study.genotypes import Decoder
from mpgls.study.grm import Kinship

if TYPE_CHECKING:
    from mpi4py import MPI

TILE = 512
"""Rows and columns of a tile of K."""


class KernelTiles:
    """This rank's tiles of the lower triangle of an n x n matrix."""

    edge = TILE

    def __init__(self, n: int, comm: MPI.Comm) -> None:
        self.n, self.comm = n, comm
        edges = [slice(start, min(start + self.edge, n)) for start in range(0, n, self.edge)]
        self.places = [(rows, cols) for i, rows in enumerate(edges) for cols in edges[: i + 1]]
        self.mine = {
            k: np.zeros((rows.stop - rows.start, cols.stop - cols.start))
            for k, (rows, cols) in enumerate(self.places)
            if k % comm.size == comm.rank
        }

    @property
    def flop(self) -> float:
        """Operations of this rank for one SNP."""
        return 2.0 * sum(tile.size for tile in self.mine.values())

    def add(self, X: np.ndarray) -> None:
        """K += X X' for X (n, B)."""
        for k, tile in self.mine.items():
            rows, cols = self.places[k]
            tile += X[rows] @ X[cols].T

    def share(self, K_node: SharedArray, divisor: float) -> None:
        """Bring all tiles to every node, divided: both triangles of ``K_node``. Collective."""
        for k, (rows, cols) in enumerate(self.places):
            tile = self.mine.get(k)
            if tile is None:
                tile = np.empty((rows.stop - rows.start, cols.stop - cols.start))
            self.comm.Bcast(tile, root=k % self.comm.size)
            if K_node.comm.rank == 0:
                K_node.array[rows, cols] = tile / divisor
                K_node.array[cols, rows] = K_node.array[rows, cols].T
        K_node.fence()


def genotype_kernel(
    K_node: SharedArray,
    tiles: KernelTiles,
    genotypes: GenotypeBlocks,
    world: World,
    training: np.ndarray | None = None,
    divisor: int | None = None,
) -> int:
    """Fill ``K_node`` (n, n) with X X' / m, by ``tiles`` of zeros; returns m, the SNPs that pass the filters and vary.

    Collective. X has mean 0 and variance 1 over the n people, or over those at the positions ``training`` among them;
    missing genotypes have the mean. ``divisor`` is used instead of m. Raises InputError when no SNP is left,
    StorageError, and Stopped after a signal, on all ranks.
    """
    used = 0
    for X, usable in _standardised(genotypes, world, training):
        with world.phase("kernel", flop=tiles.flop * X.shape[1]):
            tiles.add(X)
        used += int(usable.sum())
    if used == 0:
        raise InputError("no SNP is left after the filters: the kernel would be empty")
    with world.phase("share kernel"):
        tiles.share(K_node, divisor or used)
    return used


def _standardised(
    genotypes: GenotypeBlocks, world: World, training: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks X (n, B) of SNPs with mean 0 and variance 1 over ``training``, and which are usable; others are zero."""
    bed, rows, blocks = genotypes.bed, genotypes.rows, genotypes.cut()
    everyone = Decoder(bed.n, [rows], np.float64, bed.males)
    trained = everyone if training is None else Decoder(bed.n, [rows[training]], np.float64, bed.males)
    X_block = np.empty((rows.size, genotypes.width), order="F")
    progress, done, dropped = world.progress("kernel", genotypes.index.size, "SNPs"), 0, Dropped()
    for packed in genotypes.on_every_rank(blocks, world):
        with world.phase("decode", nbytes=packed.size):
            X = X_block[:, : packed.shape[0]]
            stats = everyone.stats(packed)
            usable = genotypes.usable(stats, dropped)
            own = stats if training is None else trained.stats(packed)
            everyone.decode(packed, [X], stats, shift=own.mean)
            varies = usable & ~own.monomorphic
            X *= np.divide(1.0, np.sqrt(own.variance), out=np.zeros(X.shape[1]), where=varies)
        yield X, usable
        done += packed.shape[0]
        progress.at(done)
    if training is None and dropped.text:
        world.log.info(f"kernel: {dropped.text}")


def given_kernel(K_node: SharedArray, kinship: Kinship, index: np.ndarray, world: World) -> float:
    """Fill ``K_node`` from rows and columns ``index`` (n,) of a kinship over its mean diagonal, which is returned.

    Collective. Raises InputError if that is not positive or the kinship not symmetric, and what ``kinship.rows``
    raises, on all ranks.
    """
    mean = 0.0
    with world.phase("load kinship") as loading:
        with world.together():
            if K_node.comm.rank == 0:
                loading.nbytes += _load(K_node.array, kinship, index)
                if not kinship.packed_lower:
                    v = np.random.default_rng(7).standard_normal((index.size, 1))
                    refuse_asymmetry(K_node.array @ v, K_node.array.T @ v, kinship, index)
                mean = _finish(K_node.array, kinship)
        K_node.fence()
    return float(world.comm.bcast(mean, root=0))


def _load(K: np.ndarray, kinship: Kinship, index: np.ndarray) -> float:
    """Rows of the file as columns of K; returns the bytes that were read."""
    target = np.full(kinship.n, -1, dtype=np.int64)
    target[index] = np.arange(index.size)
    nbytes = 0.0
    for start in range(0, kinship.n, TILE):
        place = target[start : start + TILE]
        found = kinship.rows(start, min(start + TILE, kinship.n))
        K[:, place[place >= 0]] = found[place >= 0][:, index].T
        nbytes += found.nbytes
    return nbytes


def _finish(K: np.ndarray, kinship: Kinship) -> float:
    """Mirror a triangle, scale to mean diagonal 1; returns the mean before."""
    if kinship.packed_lower:
        # of each pair one place holds the number and the other, right of the file's diagonal, zero
        diagonal = K.diagonal().copy()
        for start in range(0, len(K), TILE):
            strip = slice(start, start + TILE)
            both = K[start:, strip] + K[strip, start:].T
            K[start:, strip], K[strip, start:] = both, both.T
        K[np.diag_indices_from(K)] = diagonal
    mean = float(K.diagonal().mean())
    refuse_mean_diagonal(mean, kinship.path)
    K /= mean
    return mean
