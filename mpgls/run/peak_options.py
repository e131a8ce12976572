"""Options that say which independent signals are looked for after a scan."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.run.options import Check, Options, at_least, option

THRESHOLD, MOST = 5e-8, 20


@dataclass(frozen=True, kw_only=True)
class PeakOptions(Options):
    """Stepwise forward selection of SNPs."""

    joint_peak: int | None = option(
        None,
        "then add the best SNP to the model and scan again, until none is left; SNPs of a chromosome are at least W "
        "base pairs apart; PREFIX.TRAIT.peaks.tsv has these independent signals",
        group="model",
        metavar="W",
        check=at_least(0, " base pairs"),
    )
    p_threshold: float = option(
        THRESHOLD,
        f"largest p of a SNP that --joint-peak adds ({THRESHOLD:g})",
        group="model",
        metavar="P",
        check=Check("above 0 and at most 1", lambda value: 0 < value <= 1),
    )
    joint_max: int = option(
        MOST, f"SNPs that --joint-peak adds at most ({MOST})", group="model", metavar="K", check=at_least(1)
    )

    def check(self) -> None:
        super().check()
        if self.joint_peak is None and (self.p_threshold, self.joint_max) != (THRESHOLD, MOST):
            flag = "--p-threshold" if self.p_threshold != THRESHOLD else "--joint-max"
            raise UsageError(f"{flag} belongs to --joint-peak")
