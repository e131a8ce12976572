"""The weights of all SNPs in a model of random effects of all SNPs: w = X'a up to a scale, a = V^-1 (y - C b)."""

from __future__ import annotations

import dataclasses

import numpy as np

from mpgls.engine.fold_operators import FoldProblem
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.model.kernel_ridge import dual_coefficients, residual_operator
from mpgls.report.weights_table import SnpWeights
from mpgls.run.world import World
from mpgls.study.genotypes import Decoder

BLOCK = 1024
"""SNPs of a block, whatever the plan has: the weights are then the same bits in every plan."""


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
    genotypes: GenotypeBlocks, a_rep: np.ndarray, method: str, world: World, fitted: np.ndarray | None = None
) -> SnpWeights:
    """w_j = s_j x_j'a of all SNPs that are used, on rank 0; x_j is a centred SNP, a_rep (n, k) the same on every rank.

    ``method`` is "centered", s_j = 1, or "standardized", s_j = 1 / variance of x_j, as in `kinship_sums`. What the
    weights give the same people, sum_j x_j w_j', is added to ``fitted`` (n, k), this rank's share. Blocks are dealt to
    ranks. Collective. Raises StorageError, or Stopped after a signal, on all ranks.
    """
    genotypes = dataclasses.replace(genotypes, width=BLOCK)
    blocks = genotypes.cut()[world.rank :: world.size]
    decoder = Decoder(genotypes.bed.n, [genotypes.rows], np.float64, genotypes.bed.males)
    X_block = np.empty((genotypes.rows.size, genotypes.width), order="F")
    nothing = SnpWeights(genotypes.index[:0], np.empty(0), np.empty(0), np.empty((0, a_rep.shape[1])))
    found, reader = [nothing], genotypes.dealt(blocks, world)
    with world.together():
        for block, (_, packed) in zip(blocks, reader, strict=True):
            X = X_block[:, : packed.shape[0]]
            stats = decoder.decode(packed, [X])
            usable = genotypes.usable(stats)
            weights = X.T @ a_rep
            weights[~usable] = 0.0
            if method == "standardized":
                weights[usable] /= stats.variance[usable, None]
            if fitted is not None:
                fitted += X @ weights
            index = genotypes.index[block[usable]]
            found.append(SnpWeights(index, stats.eaf[usable], stats.mean[usable], weights[usable]))
            if world.stop.requested:
                break
    world.raise_if_stopped()
    everyone = [part for theirs in world.comm.gather(found, root=0) or [found[:1]] for part in theirs]
    whole = SnpWeights(*map(np.concatenate, zip(*everyone, strict=True)))
    order = np.argsort(whole.rows)
    return SnpWeights(*(column[order] for column in whole))
