"""Where a study's genotypes come from: one set of files, or one for each chromosome, read as one study.

`chr@` stands for the files of all chromosomes that are there: @ is 1, 2, ..., X, Y, XY, PAR1, PAR2, MT and so on. A
list names a set of files a line. Their samples are the same people, in any order.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpgls.errors import InputError, MpglsError
from mpgls.study.bgen import bgen_prefix, bgen_variants, open_bgen
from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.fam import Samples
from mpgls.study.genotype_files import AS_STORED, GenotypeFiles, Genotypes, Reading
from mpgls.study.pgen import PgenFile, open_pfile, pfile_prefix
from mpgls.study.plink import Fileset, bfile_prefix, open_fileset
from mpgls.study.regular import check_regular
from mpgls.study.sample_ids import show_sample
from mpgls.study.text import TextLines
from mpgls.study.variant_tables import VariantTables
from mpgls.study.variants import VariantRows, VariantTable

_SUFFIXES = {"bfile": ("bed", "bim", "fam"), "pfile": ("pgen", "pvar", "psam"), "bgen": ("bgen",)}
"""Of the files of a set, that of the genotypes first."""
_OF_VARIANTS = {"bfile": "bim", "pfile": "pvar", "bgen": "bgen"}
_VCF = (".vcf", ".vcf.gz", ".bcf")
_NOT_NUMBERS = ("X", "Y", "XY", "PAR1", "PAR2", "MT", "M", "Z", "W")


@dataclass(frozen=True)
class GenotypeSource:
    """Genotype files as the user names them: ``value`` is a prefix, one with @, or, if ``listed``, a file of prefixes.

    ``flag`` is the option that names them, ``reading`` what is read of files with dosages, and ``sample`` the file of a
    .bgen's samples.
    """

    flag: str
    value: str
    reading: Reading = AS_STORED
    sample: str | None = None

    @property
    def name(self) -> str:
        """The option's name as Python has it."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def kind(self) -> str:
        """bfile, pfile or bgen."""
        return self.flag.removeprefix("--").removeprefix("similarity-").removesuffix("-list")

    @property
    def listed(self) -> bool:
        """Whether ``value`` is a list of prefixes."""
        return self.flag.endswith("-list")

    def prefixes(self) -> list[str]:
        """The prefix of each set of files, in the order of the study.

        Raises InputError where a list has no line or @ finds nothing, StorageError where a list cannot be read.
        """
        if self.listed:
            check_regular(self.value)
            named = [line.strip() for _, line in TextLines(self.value)]
            if not named:
                raise InputError(f"{self.value} ({self.flag}) names no genotypes: give a prefix a line")
            # relative to the list, as a list of images is to its own place
            prefixes = [os.path.join(os.path.dirname(self.value), name) for name in named]
            self._check_once(
                [os.path.realpath(f"{self.stem(prefix)}.{_SUFFIXES[self.kind][0]}") for prefix in prefixes],
                prefixes,
                "the same files",
            )
            return prefixes
        if self.value.endswith(_VCF):
            raise InputError(
                f"{self.value} is a VCF: plink2 --vcf {self.value} dosage=DS --make-pgen --out NAME makes files for "
                "--pfile NAME of it (without dosage=DS where it has hard calls only)"
            )
        if "@" not in self.value:
            return [self.value]
        found = self._of_chromosomes()
        if not found:
            raise InputError(
                f"{self.flag} {self.value}: there is no file {self._pattern().replace('@', '1')}, nor one of another "
                "chromosome in place of @"
            )
        prefixes = [self.value.replace("@", name) for name in found]
        # X and 23 may both be there: where X is a letter, 23 is an autosome
        labels = [{"M": "MT"}.get(plain, plain) for plain in map(plain_chromosome, found)]
        self._check_once(labels, prefixes, "of the same chromosome")
        return prefixes

    def _check_once(self, labels: Sequence[str], prefixes: Sequence[str], what: str) -> None:
        """InputError if two of ``prefixes`` have one label: their SNPs would count twice."""
        for k, label in enumerate(labels):
            if label in labels[:k]:
                first = prefixes[labels.index(label)]
                raise InputError(f"{self.flag} {self.value}: {first} and {prefixes[k]} are {what}: give it once")

    def files(self, variants_only: bool = False) -> list[str]:
        """The files of all sets, or those of their variants; of what cannot be listed only what names it."""
        suffixes = (_OF_VARIANTS[self.kind],) if variants_only else _SUFFIXES[self.kind]
        named = [self.value] if self.listed else []
        try:
            prefixes = self.prefixes()
        except MpglsError:  # opening the study says what is wrong
            return named or [f"{self.stem(self.value)}.{suffixes[0]}"]
        return named + [f"{self.stem(prefix)}.{suffix}" for prefix in prefixes for suffix in suffixes]

    def stem(self, prefix: str) -> str:
        """A prefix without the suffix of one of its files."""
        return {"bfile": bfile_prefix, "pfile": pfile_prefix, "bgen": bgen_prefix}[self.kind](prefix)

    def _pattern(self) -> str:
        """The name of a file of genotypes, with its @."""
        return f"{self.stem(self.value)}.{_SUFFIXES[self.kind][0]}"

    def absent(self) -> list[str]:
        """Numbers of chromosomes without files between those of the first and the last that has some."""
        if self.listed or "@" not in self.value:
            return []
        there = [int(name) for name in self._of_chromosomes() if name.isdigit()]
        return [str(k) for k in range(min(there, default=0), max(there, default=0)) if k not in there]

    def _of_chromosomes(self) -> list[str]:
        """What stands for @ in the names of the files that are there, numbers first."""
        named = self._pattern()
        before, *rest = re.escape(named).split("@")
        pattern = re.compile(f"{before}(?P<name>[0-9A-Za-z]+){'(?P=name)'.join(rest)}")
        met = map(pattern.fullmatch, glob.glob(glob.escape(named).replace("@", "*")))
        names = [found["name"] for found in met if found]
        numbers = sorted((name for name in names if name.isdigit()), key=int)
        return numbers + [name for other in _NOT_NUMBERS for name in names if name.upper() == other]


def open_genotypes(source: GenotypeSource, missing_codes: Sequence[float] = ()) -> Fileset:
    """Open all files of ``source``; the phenotypes are those of the first .fam. ``missing_codes``: see `read_fam`.

    Raises
    ------
    StorageError : a file is missing or cannot be read.
    InputError : one is malformed, files disagree about their sizes, or two sets have other samples.
    UsageError : the package that reads them is not installed.
    """

    def opened(prefix: str, known: Samples | None = None) -> Fileset:
        if source.kind == "bgen":
            return open_bgen(source.stem(prefix), source.sample, source.reading, known)
        if source.kind == "pfile":
            return open_pfile(prefix, missing_codes, known, source.reading)
        return open_fileset(prefix, missing_codes, known)

    prefixes = source.prefixes()
    first = opened(prefixes[0])
    if len(prefixes) == 1 and not source.listed:
        return first
    sets = [first, *(opened(prefix, first.samples) for prefix in prefixes[1:])]
    orders = [_order(first.samples, one.samples) for one in sets]
    genotypes = GenotypeFiles.of(_read_alike([one.bed for one in sets]), orders)
    return Fileset(source.value, first.samples, VariantTables.of([one.variants for one in sets]), genotypes)


def _read_alike(files: list[Genotypes]) -> list[Genotypes]:
    """``files`` that are all read as dosages if one of them is."""
    any_dosages = any(file.dosages for file in files)
    return [replace(file, has_dosages=any_dosages) if isinstance(file, PgenFile) else file for file in files]


def open_variants(source: GenotypeSource) -> VariantRows:
    """The variants of ``source`` alone. Raises StorageError and InputError."""
    stems = map(source.stem, source.prefixes())
    tables: list[VariantRows]
    if source.kind == "bgen":
        tables = [bgen_variants(stem) for stem in stems]
    else:
        suffix = _OF_VARIANTS[source.kind]
        tables = [VariantTable.open(f"{stem}.{suffix}", pvar=source.kind == "pfile") for stem in stems]
    return tables[0] if len(tables) == 1 else VariantTables.of(tables)


def _order(first: Samples, other: Samples) -> np.ndarray | None:
    """Where each sample of ``first`` stands in ``other``; None for the same order. Raises InputError for other ones."""
    ids, others = first.ids(), other.ids()
    if ids == others:
        return None
    position = {sample: k for k, sample in enumerate(others)}
    for here, there, which in ((first, other, position), (other, first, set(ids))):
        lacking = next((sample for sample in here.ids() if sample not in which), None)
        if lacking is not None:
            raise InputError(
                f"{there.path} lacks sample {show_sample(lacking)} of {here.path}: all genotype files of a study must "
                "have the same samples, in any order"
            )
    return np.array([position[sample] for sample in ids], dtype=np.intp)
