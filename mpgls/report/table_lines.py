"""A table as lines of text, of which its files are made in every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpgls.study.design import INTERCEPT


@dataclass(frozen=True)
class SsfFacts:
    """What a table's lines do not say: the ``trait``, the ``build`` of the genome (37, 38), the least ``maf`` of a SNP.

    ``covariates`` are those of the model, ``largest_log10p`` is that of the table's finite p values.
    """

    trait: str
    build: int | None = None
    maf: float = 0.0
    covariates: tuple[str, ...] = ()
    largest_log10p: float = 0.0

    @classmethod
    def of(cls, trait: str, made_from: str, covariates: Sequence[str] = (), largest_log10p: float = 0.0) -> SsfFacts:
        """Of a trait; ``made_from`` is the `stream.mark` of its run or store, whose options have the rest."""
        options = json.loads(made_from).get("options", {})
        named = tuple(name for name in covariates if name != INTERCEPT)
        return cls(trait, options.get("--build"), options.get("--maf", 0.0), named, largest_log10p)


@dataclass(frozen=True)
class Table:
    """A table of ``count`` rows: ``text(start, stop)`` are the lines of rows start to stop - 1, on any rank.

    ``ssf`` is what GWAS-SSF says beside the lines; None where they are no summary statistics of a trait.
    """

    columns: Sequence[str]
    text: Callable[[int, int], bytes]
    count: int
    ssf: SsfFacts | None = None

    @property
    def header(self) -> bytes:
        """The first line."""
        return "\t".join(self.columns).encode() + b"\n"

    @property
    def is_by_snp(self) -> bool:
        """Whether a row is a SNP, and its first columns say where."""
        return tuple(self.columns[:2]) == ("CHR", "POS")
