"""The weights of all SNPs in the ridge regression of all samples: w = X'a / m, a = V^-1 (y - C b)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mpgls.engine.fold_operators import FoldProblem
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.model.kernel_ridge import dual_coefficients, residual_operator
from mpgls.run.world import World
from mpgls.study.genotypes import Decoder

BLOCK = 1024
"""SNPs of a block, whatever the kernel's are: the weights are then the same bits in every plan."""


def dual_of_all(problem: FoldProblem, Y: np.ndarray, alphas: np.ndarray, world: World) -> np.ndarray:
    """a (n, k) of targets Y (n, k), each with its own penalty ``alphas`` (k,); all are those of rank 0. Collective."""

    def solve() -> np.ndarray:
        a = np.empty_like(Y)
        for alpha in np.unique(alphas):
            D = problem.K_node.array.copy(order="F")
            residual_operator(D, problem.C_rep, alpha)
            a[:, alphas == alpha] = dual_coefficients(D, Y[:, alphas == alpha], alpha)
        return a

    return world.on_root(solve)


def snp_weights(
    genotypes: GenotypeBlocks, a_rep: np.ndarray, used: int, world: World
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """.bim rows, frequencies of A1, and weights (m, k) per copy of A1 of all SNPs that are used, on rank 0.

    ``used`` is the number of SNPs m that the kernel was divided by. Blocks are dealt to ranks. Collective. Raises
    StorageError on all ranks.
    """
    genotypes = dataclasses.replace(genotypes, width=BLOCK)
    blocks = genotypes.cut()[world.rank :: world.size]
    decoder = Decoder(genotypes.bed.n, [genotypes.rows], np.float64, genotypes.bed.males)
    X_block = np.empty((genotypes.rows.size, genotypes.width), order="F")
    found = [(genotypes.index[:0], np.empty(0), np.empty((0, a_rep.shape[1])))]
    reader = genotypes.dealt(blocks, world)
    with world.together():
        for block, (_, packed) in zip(blocks, reader, strict=True):
            X = X_block[:, : packed.shape[0]]
            stats = decoder.decode(packed, [X])
            usable = genotypes.usable(stats)
            weights = (X.T @ a_rep)[usable] / (used * stats.variance[usable, None])
            found.append((genotypes.index[block[usable]], stats.eaf[usable], weights))
    everyone = [part for theirs in world.comm.gather(found, root=0) or [found[:1]] for part in theirs]
    index, eaf, weights = (np.concatenate(column) for column in zip(*everyone, strict=True))
    order = np.argsort(index)
    return index[order], eaf[order], weights[order]
