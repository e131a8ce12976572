"""Pairs of SNP and trait fitted anew, each with a variance ratio of its own, from the X~ and E~ that tiles are made of.

For the pairs (i, j) that the tiles nominate, at nodes h2_1 .. h2_r with W = 1 / (h2_k lam + 1 - h2_k):

    S_BL, S_BR   = (Q o W)'x~_i, W'(x~_i o x~_i)     of each nominated SNP
    b_B          = W'(x~_i o e~_j)                   of each pair: all matrix products
    d, r, rss_0  = what the covariates leave, see `model.null_nodes`;  h2 = argmax REML with the SNP

A team's ranks have some rows each of the pairs of all, and one reduction gives every rank the sums of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mpgls.engine.eigenbasis import Eigenbasis
from mpgls.la.teams import Team, TeamOperator, sum_for_each
from mpgls.model.epilogue import Hits
from mpgls.model.gls import Note, SnpTest
from mpgls.model.h2_basis import variance
from mpgls.model.h2_nodes import H2Nodes, node_products
from mpgls.model.null_nodes import DesignAtNodes, TraitsAtNodes
from mpgls.model.products import ROWS
from mpgls.model.pvalues import log10_p_t
from mpgls.model.ratio_search import PairsAtNodes
from mpgls.model.snp_ratio import RatioFit, RatioModel, fields_of
from mpgls.model.tiles import TraitPanel
from mpgls.run.world import World

PAIRS = 1024
"""Pairs that a team fits together, at most about so many."""
CHUNK = 1 << 20
"""Elements of a temporary array."""
_TOGETHER = 64
"""Pairs whose rows of a step stay in cache."""


@dataclass(frozen=True, eq=False)
class GroupNodes:
    """The covariates of a group at nodes for every h2 that its pairs may have.

    ``Q_team`` (n_team, q), ``W_team`` (n_team, r) and ``lam_team`` are this rank's rows, which all panels share.
    """

    design: DesignAtNodes
    Q_team: np.ndarray
    W_team: np.ndarray
    lam_team: np.ndarray

    @classmethod
    def of(cls, basis: Eigenbasis, Z_team: TeamOperator) -> GroupNodes:
        """Of a group's ``basis``, which ``Z_team`` holds."""
        nodes, rows = H2Nodes.of(basis.lam, not basis.is_flat()), Z_team.rows
        design = DesignAtNodes.of(nodes, basis.X_L_tilde_rep)
        return cls(design, design.Q[rows], nodes.weights(rows), nodes.lam[rows])


def model_of_panel(design: DesignAtNodes, panel: TraitPanel, test: SnpTest, world: World) -> RatioModel:
    """The traits of a panel, which has its rows, at the nodes; dealt to ranks, on every rank. Collective."""
    lam, unit = design.nodes.lam, np.sqrt(panel.rss)
    mine = np.array_split(np.arange(panel.t), world.size)[world.rank]
    step = max(1, CHUNK // panel.n)
    parts = []
    for start in range(0, max(mine.size, 1), step):
        at = mine[start : start + step]
        E = panel.WE[:, at] * variance(panel.h2[at], lam[:, None])  # e~ / sqrt(rss)
        parts.append(RatioModel.of(TraitsAtNodes.of(design, E, unit[at]), test))
    whole = RatioModel.joined(parts)
    theirs = world.comm.allgather(whole.arrays())
    return RatioModel.of_arrays(design, test, [np.concatenate(one, axis=-1) for one in zip(*theirs, strict=True)])


@dataclass(frozen=True, eq=False)
class Refit:
    """Fits pairs of SNPs and a panel's traits anew. ``WE_team`` (n_team, t) are this rank's rows of its `TraitPanel`.

    ``h2`` (t,) are those of the null models.
    """

    model: RatioModel
    nodes: GroupNodes
    WE_team: np.ndarray
    h2: np.ndarray
    Z_team: TeamOperator
    team: Team

    @property
    def fields(self) -> tuple[str, ...]:
        """What a pair has beside effect and error."""
        return fields_of(self.model.test)

    def anew(self, X_tilde_team: np.ndarray, first: int, found: Hits) -> Hits:
        """This rank's pairs ``found`` with effect, error, p and further fields by their own ratio.

        ``first`` is the position of the first SNP of this rank's columns in X~. A SNP that is collinear with the
        covariates at h2 = 0 keeps what the null model's ratio gave it. Collective over the team.
        """
        count, size = found.trait.size, self.team.comm.size
        order = np.argsort(found.snp, kind="stable")  # so that pairs of a SNP share its sums
        most = count if size == 1 else max(self.team.comm.allgather(count))
        share = max(1, PAIRS // size)
        batches = [order[start : start + share] for start in range(0, most, share)]
        fits = [self._batch(X_tilde_team, found.snp[one] - first, found.trait[one]) for one in batches]
        anew = np.zeros(count, dtype=bool)
        values = {name: np.full(count, np.nan) for name in ("beta", "se", *self.fields)}
        for one, fit in zip(batches, fits, strict=True):
            anew[one] = fit.note == Note.OK
            for name, column in values.items():
                column[one] = getattr(fit, name)
        return self._hits(found, anew, values)

    def _hits(self, found: Hits, anew: np.ndarray, values: dict[str, np.ndarray]) -> Hits:
        unit, df = self.model.traits.unit[found.trait], self.model.df
        beta, se = (
            np.where(anew, values.pop(name) * unit, of_null)
            for name, of_null in (("beta", found.beta), ("se", found.se))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            t = beta / se
            x = np.where(np.isinf(t), 1.0, np.square(t) / (df + np.square(t)))
        log10_p = np.where(anew, log10_p_t(t, df), found.log10_p)
        return replace(found, beta=beta, se=se, x=np.where(anew, x, found.x), log10_p=log10_p, ratio=values)

    def _batch(self, X: np.ndarray, column: np.ndarray, trait: np.ndarray) -> RatioFit:
        """The fits of this rank's pairs: columns of its own SNPs, and traits. Collective over the team."""
        snps, at, sums, products = self._sums(X, column, trait)
        model, design = self.model, self.model.design
        q, r = design.q, design.nodes.h2.size
        S = sums.reshape(q + 1, r, snps)
        whitened, d = design.squares(S[:q].swapaxes(0, 1), S[q])
        for start in range(0, at.size, step := max(1, CHUNK // (q * r))):
            part = slice(start, start + step)
            products[:, part] -= np.einsum(
                "rqk,rqk->rk", model.traits.half[:, :, trait[part]], whitened[:, :, at[part]]
            )
        note = np.where(d[0] > model.test.tolerance * S[q, 0], Note.OK, Note.COLLINEAR).astype(np.uint8)
        pairs = PairsAtNodes(design, d[:, at], products, model.traits.rss[:, trait])
        return model.fit(pairs, trait, note[at])

    def _sums(
        self, X: np.ndarray, column: np.ndarray, trait: np.ndarray
    ) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """How many SNPs the pairs have, which of them each has, the SNPs' sums ((q+1) r, snps), and b_B (r, k)."""
        comm, width = self.team.comm, self.Z_team.columns // self.team.comm.size
        theirs = [(column, trait)] if comm.size == 1 else comm.allgather((column + comm.rank * width, trait))
        columns, traits = (np.concatenate(one) for one in zip(*theirs, strict=True))
        distinct, at = np.unique(columns, return_inverse=True)
        sums, products = self._partial(X, distinct, at, traits)
        if comm.size == 1:
            return distinct.size, at, sums, products
        snp_cuts = np.searchsorted(distinct, width * np.arange(comm.size + 1))
        pair_cuts = np.concatenate([[0], np.cumsum([one[0].size for one in theirs])])
        mine = sum_for_each(
            [
                np.concatenate([sums[:, a:b].ravel(), products[:, c:d].ravel()])
                for a, b, c, d in zip(snp_cuts[:-1], snp_cuts[1:], pair_cuts[:-1], pair_cuts[1:], strict=True)
            ],
            comm,
        )
        (a, b), (c, d) = (cuts[comm.rank : comm.rank + 2].tolist() for cuts in (snp_cuts, pair_cuts))
        of_snps = mine[: len(sums) * (b - a)].reshape(len(sums), b - a)
        return b - a, at[c:d] - a, of_snps, mine[of_snps.size :].reshape(len(products), d - c)

    def _partial(
        self, X: np.ndarray, columns: np.ndarray, at: np.ndarray, traits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Over this rank's rows: the sums of the SNPs in these ``columns`` of X~, and of pairs of them and traits."""
        Q, W, lam = self.nodes.Q_team, self.nodes.W_team, self.nodes.lam_team
        sums = np.zeros(((Q.shape[1] + 1) * W.shape[1], columns.size))
        products = np.zeros((traits.size, W.shape[1]))
        h2 = self.h2[traits, None]
        for start in range(0, len(Q), ROWS):
            rows = slice(start, start + ROWS)
            X_part = X.T[columns, rows].astype(np.float64)
            sums += node_products(Q[rows], W[rows], X_part.T)
            for first in range(0, traits.size, _TOGETHER):
                part = slice(first, first + _TOGETHER)
                V = h2[part] * lam[rows]
                V += 1.0 - h2[part]
                V *= self.WE_team.T[traits[part], rows]  # e~ / sqrt(rss)
                V *= X_part[at[part]]
                products[part] += V @ W[rows]
        return sums, products.T
