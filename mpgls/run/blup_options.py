"""The option that asks for what the model predicts."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.run.options import Options, flag


@dataclass(frozen=True, kw_only=True)
class BlupOptions(Options):
    """Of scans of traits one by one."""

    blup: bool = flag(
        "genetic values of the samples (BLUP), and what each SNP of the kinship adds to them, for mpgls score",
        group="output",
    )
