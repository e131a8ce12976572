"""The tile phase of ``mpgls multi-trait`` on rotated data in memory: what a benchmark of it repeats.

Panels, products, epilogue, block widths and panel widths are the program's own; only reading, decoding and rotating
SNPs happen beforehand. Each rank holds every second block of SNPs (of two ranks) and all traits, as in teams of one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.engine.tile_plan import TileSizes, TileWishes, plan_tiles
from mpgls.model.epilogue import Epilogue
from mpgls.model.h2_basis import TOLERANCE
from mpgls.model.spectra import clip_spectrum, maximise_spectral_reml
from mpgls.model.tiles import LocalPanel, TraitPanel
from mpgls.run.plan import Machine
from mpgls.stream.eigen_file import open_eigen_file
from mpgls.study.genotypes import Decoder
from mpgls.study.plink import open_fileset
from mpgls.study.tables import read_table
from mpgls.study.trait_matrix import open_traits

if TYPE_CHECKING:
    from mpi4py import MPI

DTYPE = {"double": np.float64, "mixed": np.float32}


@dataclass(frozen=True)
class Rotated:
    """This rank's data in the eigenbasis: lam (n,), X_L_tilde (n, q), Y_tilde (n, t), h2 (t,), its SNPs X_tilde (n, m).

    ``norms`` (m,) are the squared norms of the SNPs before rotation.
    """

    lam: np.ndarray
    X_L_tilde: np.ndarray
    Y_tilde: np.ndarray
    h2: np.ndarray
    X_tilde: np.ndarray
    norms: np.ndarray


def rotate(comm: MPI.Comm, prefix: Path, eigen: Path, traits: Path) -> Rotated:
    """Rotate all traits, and this rank's share of the SNPs; estimate h2 of every trait. Collective."""
    fileset, file, matrix = open_fileset(str(prefix)), open_eigen_file(eigen), open_traits(traits)
    bed = fileset.bed
    Z_T = file.columns(0, bed.n)  # row k is the k-th eigenvector
    covariates = read_table(f"{prefix}.covar.tsv").values
    X_L_tilde = Z_T @ np.hstack([np.ones((bed.n, 1)), covariates])
    mine = np.array_split(np.arange(len(matrix.names)), comm.size)[comm.rank]
    Y_rot_mine = np.asfortranarray(Z_T @ matrix.read(mine).T)
    lam = clip_spectrum(file.lam)
    h2_mine = maximise_spectral_reml(lam, X_L_tilde, Y_rot_mine, np.linalg.slogdet(X_L_tilde.T @ X_L_tilde)[1]).h2
    Y_tilde = np.concatenate([part.T for part in comm.allgather(Y_rot_mine)]).T
    snps = np.array_split(np.arange(bed.m), comm.size)[comm.rank]
    packed = np.memmap(bed.path, dtype=np.uint8, mode="r", offset=bed.HEADER, shape=(bed.m, bed.snp_bytes))[snps]
    X = np.empty((bed.n, snps.size), order="F")
    stats = Decoder(bed.n, [np.arange(bed.n)], np.float64).decode(packed, [X])
    X_tilde = np.asfortranarray(Z_T @ X)
    return Rotated(lam, X_L_tilde, Y_tilde, np.concatenate(comm.allgather(h2_mine)), X_tilde, bed.n * stats.variance)


class TilePass:
    """All tiles of this rank in one precision, and the one matrix product of their shape. Collective over ``comm``."""

    def __init__(self, comm: MPI.Comm, data: Rotated, precision: str) -> None:
        self.comm, self.data, self.dtype = comm, data, DTYPE[precision]
        (n, t), q, m = data.Y_tilde.shape, data.X_L_tilde.shape[1], data.X_tilde.shape[1]
        sizes = TileSizes(
            n, m * comm.size, t, q, snp_bytes=-(-n // 4), item=np.dtype(self.dtype).itemsize, from_file=True
        )
        plan = plan_tiles(Machine(comm.size, comm.size, None, 0), sizes, TileWishes(team_size=1))
        self.block, self.panel = plan.block, plan.panel
        self.X_tilde = np.asfortranarray(data.X_tilde, dtype=self.dtype)
        self.panels: list[tuple[slice, TraitPanel, LocalPanel]] = []
        for first in range(0, t, self.panel):
            part = slice(first, min(t, first + self.panel))
            panel = TraitPanel(
                data.lam, data.X_L_tilde, data.Y_tilde[:, part], data.h2[part], self.dtype, TOLERANCE[precision]
            )
            self.panels.append((part, panel, panel.local()))
        self.nodes = max(len(panel.basis.nodes) for _, panel, _ in self.panels)
        self._WE = np.asfortranarray(np.hstack([panel.WE for _, panel, _ in self.panels]))
        self._product = np.empty((t, m), dtype=self.dtype)
        self.phases: list[dict[str, float]] = []

    def tiles(self) -> float:
        """Seconds of the slowest rank for products, Schur complements and epilogue of all its tiles. Collective."""
        keep = [Epilogue(panel.rss, panel.n, panel.q) for _, panel, _ in self.panels]
        spent = dict.fromkeys(("products", "Schur", "epilogue"), 0.0)
        self.comm.Barrier()
        start = now = time.perf_counter()
        for first in range(0, self.X_tilde.shape[1], self.block):
            snps = np.arange(first, min(first + self.block, self.X_tilde.shape[1]))
            X, norms = self.X_tilde[:, first : first + self.block], self.data.norms[first : first + self.block]
            for (_, panel, local), epilogue in zip(self.panels, keep, strict=True):
                partial = local.partial_products(X)
                now, before = time.perf_counter(), now
                spent["products"] += now - before
                tile = panel.finish(partial, norms)
                now, before = time.perf_counter(), now
                spent["Schur"] += now - before
                epilogue.add(tile, snps)
                now, before = time.perf_counter(), now
                spent["epilogue"] += now - before
        self.phases.append(spent)
        return max(self.comm.allgather(now - start))

    def gemm(self) -> float:
        """Seconds of the slowest rank for (W o E~)'X~, all its traits and SNPs in one product. Collective."""
        self.comm.Barrier()
        start = time.perf_counter()
        np.matmul(self._WE.T, self.X_tilde, out=self._product)
        return max(self.comm.allgather(time.perf_counter() - start))

    def estimates(self, traits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """beta and se (k, m) of some traits for this rank's SNPs, as the tiles give them."""
        shape = traits.size, self.X_tilde.shape[1]
        beta, se = np.empty(shape), np.empty(shape)
        for part, panel, local in self.panels:
            inside = np.flatnonzero((traits >= part.start) & (traits < part.stop))
            epilogue = Epilogue(panel.rss, panel.n, panel.q)
            wide = [np.empty((panel.t, self.block)) for _ in range(2)]
            for first in range(0, shape[1], self.block):
                here = slice(first, min(first + self.block, shape[1]))
                tile = panel.finish(local.partial_products(self.X_tilde[:, here]), self.data.norms[here])
                outs = [out[:, : here.stop - first] for out in wide]
                epilogue.add(tile, np.arange(here.start, here.stop), *outs)
                for values, out in zip((beta, se), outs, strict=True):
                    values[inside, here] = out[traits[inside] - part.start]
        return beta, se
