"""Options of inference over voxels: permutations, thresholds, clusters."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.model.clusters import CONNECTIVITIES
from mpgls.run.option_groups import POSITIVE
from mpgls.run.options import Check, Options, at_least, option


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(Options):
    """How voxels are thresholded, and which permutations correct for all of them."""

    permutations: int = option(
        1000, "permutations of the samples (1000)", group="inference", metavar="P", check=at_least(0)
    )
    first_permutation: int = option(
        1, "add permutations K, K + 1, ... to a finished run", group="inference", metavar="K", check=at_least(1)
    )
    seed: int = option(1, "key of the permutations (1)", group="inference", metavar="S", check=at_least(0))
    sparsity_threshold: float = option(
        1e-4,
        "pairs with at most this p value are kept, and make volumes and clusters (1e-4)",
        group="inference",
        metavar="P",
        check=Check("above 0 and at most 1", lambda value: 0 < value <= 1),
    )
    connectivity: int = option(
        6,
        "neighbours of a voxel in a cluster: 6, 18 or 26 (6)",
        group="inference",
        metavar="C",
        check=Check("6, 18 or 26", lambda value: value in CONNECTIVITIES),
    )
    tfce_step: float = option(0.1, "step of TFCE, in units of t (0.1)", group="inference", metavar="T", check=POSITIVE)
    tail: str = option(
        "none",
        "gpd: corrected p below 1 / (P + 1) from a generalised Pareto fit to the tail of the maxima",
        group="inference",
        choices=("none", "gpd"),
    )

    def check(self) -> None:
        super().check()
        if max(self.seed, self.first_permutation + self.permutations) >= 2**63:
            raise UsageError("--seed and the last permutation must be below 2^63")
        if self.adds and self.permutations == 0:
            raise UsageError("--first-permutation adds permutations, so --permutations must be at least 1")

    @property
    def adds(self) -> bool:
        """Whether the run adds permutations to a finished one."""
        return self.first_permutation > 1

    @property
    def indices(self) -> range:
        """The permutations of this run; the first run of an output has index 0, the data as they are, as well."""
        first = self.first_permutation
        return range(first if self.adds else 0, first + self.permutations)
