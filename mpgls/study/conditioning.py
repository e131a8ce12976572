"""SNPs that the model has beside the covariates: tested SNPs are tested conditioned on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.model.coding import Coding
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder, missing_per_sample
from mpgls.study.text import part_names, read_words
from mpgls.study.variants import VariantRows


@dataclass(frozen=True, eq=False)
class ConditioningSnps:
    """k SNPs: their ``ids``, .bim ``rows`` (k,), and ``columns`` (samples of the .fam, k) as coded; NaN: missing."""

    ids: tuple[str, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    columns: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    @classmethod
    def of(
        cls, ids: Sequence[str], rows: np.ndarray, packed: np.ndarray, bed: Genotypes, coding: Coding
    ) -> ConditioningSnps:
        """SNPs ``rows``, ascending, from their ``packed`` genotypes (k, snp_bytes)."""
        columns = np.empty((bed.n, len(rows)), order="F")
        Decoder(bed.n, [np.arange(bed.n)], np.float64, bed.males, coding).decode(
            packed, [columns], shift=np.zeros(len(rows))
        )
        for k in range(len(rows)):
            columns[missing_per_sample(packed[k : k + 1], bed.n) > 0, k] = np.nan
        return cls(tuple(ids), rows, columns)

    def joined(self, others: ConditioningSnps) -> ConditioningSnps:
        """These, and then ``others``."""
        if not self.ids or not others.ids:
            return others if others.ids else self
        rows, columns = np.append(self.rows, others.rows), np.column_stack([self.columns, others.columns])
        return ConditioningSnps(self.ids + others.ids, rows, columns)

    def imputed(self, samples: np.ndarray) -> np.ndarray:
        """The columns over some samples (n, k), missing ones with the mean of the others.

        Raises InputError, naming it, for a SNP that does not vary among them.
        """
        taken = self.columns[samples]
        for name, column in zip(self.ids, taken.T, strict=True):
            known = ~np.isnan(column)
            if not known.any() or (column[known] == column[known][0]).all():
                why = "has the same genotype, as --model codes it," if known.any() else "is missing"
                raise InputError(
                    f"SNP {name!r}, which the model is to be conditioned on, {why} in all {len(samples):,} analysed "
                    "samples"
                )
            column[~known] = column[known].mean()
        return taken


def find_snps(variants: VariantRows, asked: Sequence[str], path: str | None) -> tuple[list[str], np.ndarray]:
    """The IDs that --condition ``asked`` for and those of the list ``path``, and their .bim rows.

    They are in the order of the .bim. Commas may separate IDs. Raises UsageError where there is none or one is named
    twice, InputError for one that the genotypes lack or have twice, or that has several ALT alleles.
    """
    words = [*asked, *(read_words(path)[0] if path is not None else [])]
    wanted = {name for word in words for name in (word, *word.split(","))}
    found: dict[str, list[int]] = {}
    for start, batch in variants.batches():
        for k, name in enumerate(batch.id):
            if name in wanted:
                found.setdefault(name, []).append(start + k)
    names = part_names(words, set(found))
    by = " and ".join(flag for flag, given in (("--condition", asked), ("--condition-list", path)) if given)
    verb = "name" if asked and path is not None else "names"
    if not names:
        raise UsageError(f"{by} {verb} no SNP")
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(f"{by} {verb} SNP {name!r} {times} times: once is enough")
        if name not in found:
            raise InputError(f"{variants.path} has no SNP {name!r}, which {by} {verb}")
        if len(found[name]) > 1:
            first, second = map(variants.place, found[name][:2])
            raise InputError(f"{first} and {second} are both SNP {name!r}: {by} cannot say which is meant")
    kept = {name: rows[0] for name, rows in found.items() if name in set(names)}
    for row in kept.values():
        _refuse_several_alleles(variants, row)
    return list(kept), np.array(list(kept.values()), dtype=np.int64)


def _refuse_several_alleles(variants: VariantRows, row: int) -> None:
    (alleles,) = variants.read(row, row + 1).a1
    if variants.has_alt and "," in alleles:
        raise InputError(f"{variants.place(row)}: a SNP with several ALT alleles, {alleles}, cannot be conditioned on")
