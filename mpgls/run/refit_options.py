"""Options that say which pairs of SNP and trait get a variance ratio of their own."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.run.option_groups import RatioOptions
from mpgls.run.options import Check, option
from mpgls.run.tile_options import TileOptions

REFIT_P = 1e-3


@dataclass(frozen=True, kw_only=True)
class RefitOptions(RatioOptions, TileOptions):
    """Of tiles whose pairs beyond a threshold are fitted anew."""

    ratio: str = option(
        "null",
        "null estimates h2 of a trait once, without a SNP; snp estimates it anew, as GEMMA does, with the SNP of each "
        "pair whose p is at most --refit-p",
        group="model",
        choices=("null", "snp"),
    )
    refit_p: float | None = option(
        None,
        f"with --ratio snp: pairs with p at most P by the null model's h2 are fitted anew ({REFIT_P:g})",
        group="model",
        metavar="P",
        check=Check("above 0 and at most 1", lambda value: 0 < value <= 1),
    )

    def check(self) -> None:
        super().check()
        if self.refit_p is not None and self.ratio == "null":
            raise UsageError("--refit-p needs --ratio snp")
        if self.refit_threshold is not None and self.refit_threshold < self.p_threshold:
            raise UsageError(
                f"--refit-p {self.refit_threshold:g} is below --p-threshold {self.p_threshold:g}: hits are pairs that "
                "were fitted anew, so it must be at least that"
            )

    @property
    def refit_threshold(self) -> float | None:
        """The largest p of a pair that is fitted anew; None: no pair is."""
        if self.ratio == "null":
            return None
        return REFIT_P if self.refit_p is None else self.refit_p
