"""The covariates of the analysed samples, of which categories become indicator columns.

Of a category with k levels among the samples, the largest is the base and k - 1 columns say with 1 who has which other
level. Which level is the base changes no test of a SNP, because the columns span the same space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mpgls.errors import InputError
from mpgls.study.conditioning import ConditioningSnps

MANY = 10
"""Levels of a category that are not warned of."""
MOST = 1000
"""Levels that a category can have: more are names or numbers, and would make a column for each."""
_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Covariates:
    """The c covariates of n samples as the user has them: ``values`` (n, c), columns called ``names``.

    A column in ``levels`` holds positions among its levels. The products of those called ``interacting`` with each SNP
    are tested. ``snps`` are beside them, ``rows`` (n,) the samples among theirs.
    """

    values: np.ndarray
    names: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    interacting: tuple[str, ...] = ()
    snps: ConditioningSnps = field(default_factory=ConditioningSnps)
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def none(cls, n: int) -> Covariates:
        """No covariates of n samples."""
        return cls(np.empty((n, 0)))

    def take(self, samples: np.ndarray) -> Covariates:
        """Those of some samples, in their order."""
        rows = self.rows[samples] if self.snps.ids else self.rows
        return replace(self, values=self.values[samples], rows=rows)

    def beside(self, snps: ConditioningSnps, rows: np.ndarray) -> Covariates:
        """The same with ``snps``; ``rows`` (n,) are the samples' positions in the .fam."""
        return replace(self, snps=snps, rows=rows)

    def of_interaction(self) -> Covariates:
        """Those that are ``interacting`` alone."""
        at = [self.names.index(name) for name in self.interacting]
        levels = {name: self.levels[name] for name in self.interacting if name in self.levels}
        return Covariates(self.values[:, at], self.interacting, levels, self.interacting)

    def columns(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """C (n, q-1) and the names of its columns; an indicator is called ``NAME=LEVEL``.

        Raises InputError for a category with a single level, or with too many, and for a SNP that does not vary.
        """
        columns, names = [], []
        for name, column in zip(self.names, self.values.T, strict=True):
            if name not in self.levels:
                columns.append(column)
                names.append(name)
                continue
            category = self._category(name)
            category.check()
            columns += [(column == code).astype(np.float64) for code in category.others]
            names += [f"{name}={category.levels[code]}" for code in category.others]
        if self.snps.ids:
            columns += list(self.snps.imputed(self.rows).T)
            names += self.snps.ids
        return np.column_stack([np.empty((len(self.values), 0)), *columns]), tuple(names)

    def lines(self) -> Iterator[str]:
        """What the log says of each category."""
        for name in self.levels:
            yield self._category(name).text()

    def warnings(self) -> Iterator[str]:
        """What may be wrong with each category."""
        for name in self.levels:
            yield from self._category(name).warnings()

    def _category(self, name: str) -> _Category:
        codes = self.values[:, self.names.index(name)].astype(np.int64)
        return _Category(name, self.levels[name], np.bincount(codes, minlength=len(self.levels[name])))


@dataclass(frozen=True)
class _Category:
    """A category over some samples: ``counts`` (k,) says how many have each of the ``levels``."""

    name: str
    levels: tuple[str, ...]
    counts: np.ndarray

    @property
    def base(self) -> int:
        """The position of the largest level; of several the first."""
        return int(np.argmax(self.counts))

    @property
    def others(self) -> list[int]:
        """The positions of the other levels that samples have."""
        return [int(code) for code in np.flatnonzero(self.counts) if code != self.base]

    def check(self) -> None:
        n = int(self.counts.sum())
        if not self.others:
            raise InputError(f"covariate {self.name!r} is {self.levels[self.base]!r} in all {n} analysed samples")
        if len(self.others) >= min(MOST, max(MANY, n // 2)):
            raise InputError(
                f"covariate {self.name!r} has {len(self.others) + 1:,} levels among {n:,} analysed samples, too many "
                "for a category: choose the covariates with --covar-name"
            )

    def text(self) -> str:
        shown = [f"{self.levels[code]} ({self.counts[code]:,})" for code in self.others[:_SHOWN]]
        more = ", ..." if len(self.others) > _SHOWN else ""
        return (
            f"covariate {self.name}: a category of {len(self.others) + 1} levels; the base is {self.levels[self.base]} "
            f"({self.counts[self.base]:,} samples), with indicators of {', '.join(shown)}{more}"
        )

    def warnings(self) -> Iterator[str]:
        if len(self.others) >= MANY:
            yield f"covariate {self.name} has {len(self.others) + 1} levels, and each takes a degree of freedom"
        single = [self.levels[code] for code in self.others if self.counts[code] == 1]
        if single:
            shown = ", ".join(single[:3]) + (", ..." if len(single) > 3 else "")
            yield (
                f"covariate {self.name}: a single sample has level {shown}, so it takes no part in the tests"
                if len(single) == 1
                else f"covariate {self.name}: single samples have the levels {shown}, so they take no part in the tests"
            )
