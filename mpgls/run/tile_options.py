"""Options that say what tiles of SNPs and many traits are made of, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.run.options import Check, Options, at_least, flag, option
from mpgls.study.trait_matrix import POLICIES


@dataclass(frozen=True, kw_only=True)
class TileOptions(Options):
    """Tiles of SNPs and traits, and what is kept of them."""

    missing: str = option(
        "by-mask",
        "by-mask: exact, traits grouped by their samples; complete: samples with all traits; impute: approximate",
        group="model",
        choices=POLICIES,
    )
    p_threshold: float = option(
        5e-8,
        "pairs with p at most P are written (5e-8)",
        group="output",
        metavar="P",
        check=Check("above 0 and at most 1", lambda value: 0 < value <= 1),
    )
    dense: bool = flag("keep every effect and standard error, in PREFIX.h5", group="output")
    trait_block: int | None = option(
        None, "traits of a tile; default: chosen by the plan", metavar="T", check=at_least(1), changes_results=False
    )
    pass_traits: int | None = option(
        None,
        "traits of one pass over the SNPs, at most; default: as memory allows",
        metavar="T",
        check=at_least(1),
        changes_results=False,
    )
    scratch: str | None = option(
        None, "directory for rotated SNPs; default: beside the output", metavar="DIR", changes_results=False
    )
