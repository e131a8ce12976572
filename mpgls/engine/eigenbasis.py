"""The eigenbasis of a group's kinship, Phi = Z diag(lam) Z', and the traits and their null models in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mpgls.engine.covariance import log_det_gram
from mpgls.engine.eigenpairs import decompose, leading_units, load_vectors
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.la import eigen
from mpgls.la.grid import ProcessGrid
from mpgls.la.hold import hold_basis
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import GridToBlocks, one_by_one
from mpgls.la.teams import Team, TeamOperator
from mpgls.model import null_record
from mpgls.model.h2_scale import check_given
from mpgls.model.null_record import NullFlag, Source
from mpgls.model.spectra import TraitFlag, clip_spectrum, is_flat_spectrum, maximise_spectral_reml, orthonormal
from mpgls.run.world import World
from mpgls.stream.eigen_file import EigenFile
from mpgls.study.trait_groups import TraitGroup
from mpgls.study.trait_matrix import TraitMatrix


class Eigenbasis:
    """The eigenbasis of Phi over n samples, and their covariates in it.

    ``lam`` (n,) ascending, negative rounding set to 0; ``Z_grid`` n x n [MC,MR]; ``X_L_tilde_rep`` (n, q) = Z'X_L on
    every rank, with ``pcs`` leading eigenvectors as further covariates. Creating it is collective.
    """

    def __init__(self, lam: np.ndarray, Z_grid: GridMatrix, X_L_rep: np.ndarray, pcs: int = 0) -> None:
        self.lam, self.Z_grid = clip_spectrum(lam), Z_grid
        self.X_L_tilde_rep = np.asfortranarray(np.hstack([self.rotate(X_L_rep), leading_units(lam.size, pcs)]))

    def rotate(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = Z'C of replicated columns (n, k), on every rank. Collective."""
        return eigen.multiply(self.Z_grid, C_rep, transposed=True)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """Of the blocks of Z' that each rank wants, this rank's, float64. Collective."""
        return one_by_one(GridToBlocks(self.Z_grid, wanted, transposed=True).run(np.float64))

    def is_flat(self) -> bool:
        """Whether the kinship leaves h2 of every trait unidentified."""
        return is_flat_spectrum(self.lam, orthonormal(self.X_L_tilde_rep))

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """Z on every team, for blocks of ``width`` SNPs a rank. Collective."""
        return hold_basis(self.Z_grid, team, width, dtype)


class Bases(Protocol):
    """Hands out the eigenbases of groups of traits, one after the other."""

    facts: list[dict[str, Any]]
    """What the manifest says of the decompositions."""

    @property
    def source(self) -> str:
        """The file of the kinship or of its eigendecomposition."""

    def take(self, group: TraitGroup, label: str) -> Eigenbasis:
        """The basis of one group; ``label`` is what the log calls it. Collective."""


@dataclass
class KinshipBases:
    """Bases of a kinship: decomposed for each group by ``solver``; ``pcs`` leading eigenvectors become covariates."""

    kinship: KinshipOnGrid
    solver: str
    slepc_options: str
    pcs: int
    world: World
    facts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The file of the kinship."""
        return self.kinship.path

    def take(self, group: TraitGroup, label: str) -> Eigenbasis:
        """The basis of a group. Collective. Raises NumericalError when the decomposition fails its check."""
        Phi_grid = self.kinship.take(group.rows, label, to_destroy=True)
        pairs = decompose(Phi_grid, self.solver, self.slepc_options, self.world, label)
        self.facts.append({"n": group.n, "solver": pairs.how, "residual": pairs.residual})
        return Eigenbasis(pairs.lam, pairs.Z_grid, group.X_L, self.pcs)


@dataclass
class FileBases:
    """The basis in a file of mpgls eigen, on ``grid`` in blocks of ``block``; ``pcs`` as in `KinshipBases`."""

    file: EigenFile
    grid: ProcessGrid
    block: int
    pcs: int
    world: World
    facts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The file of the eigendecomposition."""
        return str(self.file.path)

    def take(self, group: TraitGroup, label: str) -> Eigenbasis:
        """The basis, of which the group has the samples. Collective. Raises StorageError."""
        Z_grid = load_vectors(self.file, self.grid, self.block, self.world)
        self.world.log.info(f"{label}: n = {group.n:,}; eigenvectors from {self.file.path}")
        return Eigenbasis(self.file.lam, Z_grid, group.X_L, self.pcs)


def rotate_traits(
    basis: Eigenbasis, matrix: TraitMatrix, group: TraitGroup, first: int, stop: int, world: World
) -> np.ndarray:
    """Y~ = Z'Y of the traits first..stop of a group: (n, stop-first) on every rank, Fortran order. Collective.

    Rank 0 reads them. Raises InputError or StorageError, on all ranks, for what is wrong with their file.
    """
    with world.phase("rotate traits", flop=2.0 * group.n**2 * (stop - first) / world.size):
        Y_rep = np.empty((stop - first, group.n)).T

        def read() -> None:
            Y_rep[...] = group.read(matrix, first, stop)

        world.on_root(read)
        world.comm.Bcast(Y_rep.T, root=0)
        return np.asfortranarray(basis.rotate(Y_rep))


def maximise_reml_of_traits(basis: Eigenbasis, Y_tilde_rep: np.ndarray, given: np.ndarray, world: World) -> np.ndarray:
    """h2 of every trait of Y~ (n, t): as ``given`` (t,), or where that is NaN by REML; the traits are dealt to ranks.

    Returns records (t,) of `model.null_record`, without s2, on every rank. Collective.
    Raises NumericalError where V is not positive definite at a given h2.
    """
    check_given(given, basis.lam)
    nulls = null_record.unknown(given.size)
    nulls["h2"], nulls["source"] = given, Source.GIVEN
    mine = np.array_split(np.flatnonzero(np.isnan(given)), world.size)[world.rank]
    with world.phase("REML"):
        X_L_rep = basis.X_L_tilde_rep
        with world.clock.alone():
            found = maximise_spectral_reml(basis.lam, X_L_rep, Y_tilde_rep[:, mine], log_det_gram(X_L_rep))
        of_mine = null_record.unknown(mine.size)
        for name in ("h2", "h2_se", "log_likelihood"):
            of_mine[name] = getattr(found, name)
        of_mine["source"], of_mine["flag"] = Source.REML, np.where(found.at_boundary, NullFlag.BOUNDARY, 0)
        of_mine["flag"][found.flags & TraitFlag.UNIDENTIFIED != 0] = NullFlag.UNIDENTIFIED
        for theirs, records in world.comm.allgather((mine, of_mine)):
            nulls[theirs] = records
    return nulls
