"""mpgls export: the tables of a result store, the same that the run itself writes.

The store is that of single-trait or low-rank, a dense one of multi-trait (``--dense``), or the voxels of vgwas. All
ranks format and write together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.report.exported_voxels import ENDING, SnpsOfVoxels, open_snps
from mpgls.report.file_names import trait_parts
from mpgls.report.table import FIGURES_BYTES, FIGURES_BYTES_EACH, ScanTable, table_bytes
from mpgls.report.table_formats import ALL_ENDINGS, endings_of, made_files, table_paths, table_sizes
from mpgls.report.table_lines import SsfFacts
from mpgls.run.genotype_options import SOURCES, files_of, named_source
from mpgls.run.identity import file_identity
from mpgls.run.job import open_job
from mpgls.run.option_groups import OutputOptions
from mpgls.run.options import option, required, the_file
from mpgls.run.results import Results
from mpgls.run.table_options import TableOptions
from mpgls.stream import dense_store, store
from mpgls.stream.hdf5 import store_format
from mpgls.stream.vgwas_files import ENTRIES_FORMAT, EntriesFile
from mpgls.study.regular import check_regular
from mpgls.study.sources import GenotypeSource, open_variants
from mpgls.study.text import part_names
from mpgls.study.variant_tables import variant_files
from mpgls.study.variants import VariantRows

if TYPE_CHECKING:
    from mpi4py import MPI


_WHY_ABSENT = "it was made by an earlier version, or by a run that did not get that far"


@dataclass(frozen=True, kw_only=True)
class Export(TableOptions, OutputOptions):
    """Options of ``mpgls export``.

    Its manifest is PREFIX.export.json, so that tables may stand beside the store that they come from.
    """

    command = "export"
    summary = "tables of a result store, in any format"
    example = "mpgls export all.h5 --trait CD8 --out cd8"
    record = ".export"

    store: str = required(
        "PREFIX.h5 of single-trait, low-rank or multi-trait --dense; PREFIX.voxels.h5 of vgwas",
        metavar="STORE",
        positional=True,
        reads=the_file,
    )
    trait: tuple[str, ...] = option((), "traits; needed if there are several", metavar="NAME")
    tail: str = option(
        "none", "of vgwas: gpd, if corrected p are to go on in a fitted tail, as there", choices=("none", "gpd")
    )
    bfile: str | None = option(
        None,
        "PLINK files, if they are no longer where the run found them",
        metavar="PREFIX",
        reads=files_of("--bfile", variants_only=True),
    )
    bfile_list: str | None = option(
        None, "list of PLINK files, if they are no longer there", metavar="FILE", reads=files_of("--bfile-list", True)
    )
    pfile: str | None = option(
        None, "PLINK 2 files, if they are no longer there", metavar="PREFIX", reads=files_of("--pfile", True)
    )
    pfile_list: str | None = option(
        None, "list of PLINK 2 files, if they are no longer there", metavar="FILE", reads=files_of("--pfile-list", True)
    )

    bgen: str | None = option(
        None, "BGEN, if it is no longer there", metavar="FILE", reads=files_of("--bgen", variants_only=True)
    )

    def starts(self, names: Sequence[str]) -> dict[str, str]:
        """What comes between PREFIX and the ending in the names of each trait's files."""
        if len(names) == 1:
            return dict.fromkeys(names, "")
        return {name: f".{part}" for name, part in zip(names, trait_parts(names, ALL_ENDINGS), strict=True)}

    @property
    def store_prefix(self) -> str:
        """The --out of the run that made the store."""
        return self.store.removesuffix(ENDING if self.store.endswith(ENDING) else ".h5")


@dataclass(frozen=True)
class Exportable:
    """One complete trait of a store: ``read(start, stop)`` gives records of `mpgls.stream.store`."""

    facts: SsfFacts
    read: Callable[[int, int], np.ndarray]
    df: float
    test: str
    further: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the trait."""
        return self.facts.trait


@dataclass(frozen=True)
class TablesOfTraits:
    """The tables of the ``traits`` of a store. Picklable: rank 0 opens it and broadcasts."""

    source: store.ResultStore | dense_store.DenseStore
    variants: VariantRows
    traits: Mapping[str, int]

    @property
    def table_bytes(self) -> int:
        """Of a trait's table, about."""
        further = len(store.further_fields(self.source.dtype))
        return table_bytes(self.variants, self.source.count, FIGURES_BYTES + FIGURES_BYTES_EACH * further)

    def write(self, name: str, paths: Mapping[str, Path], comm: MPI.Comm) -> list[str]:
        """Write a trait's table to ``paths``, by format; returns what a person should know of them. Collective."""
        source, one = self.source, exportable(self.source, self.traits[name])
        rows = ScanTable(self.variants, one.read, source.count, one.df, one.test, source.index, one.further)
        return rows.write(comm, paths, one.facts)


@dataclass(frozen=True)
class _Opened:
    tables: TablesOfTraits | SnpsOfVoxels
    names: Sequence[str]
    variants: VariantRows
    same_bim: bool


def run(options: Export, comm: MPI.Comm) -> Results:
    """Write ``OUT.tsv``, or ``OUT.TRAIT.tsv`` for each of several traits, or the same in other formats. Collective.

    Raises MpglsError, the same on all ranks, before anything is written if a trait is not there or incomplete.
    """
    with open_job(options, comm, reads=(options.store_prefix,)) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            opened = world.on_root(lambda: _open(options))
            job.identify()
        if not opened.same_bim:
            world.log.warn(
                f"{opened.variants.path} is not what {options.store} was made with: its rows are taken to be "
                "the same SNPs in the same order"
            )
        starts, count = options.starts(opened.names), opened.tables.source.count
        claimed = [f"{start}{ending}" for start in starts.values() for ending in endings_of(options.formats)]
        world.on_root(lambda: job.outputs.claim(claimed))
        sizes = [table_sizes(start, options.formats, opened.tables.table_bytes) for start in starts.values()]
        job.check_room({name: size for of_table in sizes for name, size in of_table.items()})
        tables: dict[str, Path] = {}
        files: list[Path] = []
        for name, start in starts.items():
            paths = table_paths(job.path(start), options.formats)
            with world.phase("table"):
                notes = opened.tables.write(name, paths, comm)
            files += world.on_root(partial(made_files, paths))
            tables[name] = paths[options.formats[0]]
            for line in (f"{name}: {count:,} SNPs: {', '.join(map(str, paths.values()))}", *notes):
                world.log.info(line)
            world.raise_if_stopped()
        return job.finish({"snps": count}, files=files, tables=tables)


def exportable(source: store.ResultStore | dense_store.DenseStore, trait: int) -> Exportable:
    """The trait at position ``trait``; InputError if it is incomplete or was not tested."""
    covariates: Sequence[str] = ()
    if isinstance(source, dense_store.DenseStore):
        name, done, df, test = source.names[trait], source.done_of(trait), source.df(trait) or None, source.test
        if not source.is_tested(trait) and done.all():
            raise InputError(f"trait {name!r} of {source.path} was not tested: its row of the .traits.tsv says why")
    else:
        place = source.traits[trait]
        name, done, covariates = place.name, place.done, source.nulls.covariates[trait]
        if source.nulls.damaged[:, trait].any():
            raise InputError(f"{source.path} is damaged: the null model of trait {name!r} is not what was written")
        df, test = int(source.nulls.records["df"][0, trait]) or None, str(source.attributes.get("test", ""))
    if not done.all():
        raise InputError(
            f"trait {name!r} of {source.path} is incomplete: {int(done.sum()):,} of {done.size:,} blocks are done; "
            "finish the run with --resume"
        )
    if df is None or not test:
        missing = "the test" if not test else "the degrees of freedom"
        raise InputError(f"{source.path} does not say {missing} of trait {name!r}: {_WHY_ABSENT}")
    further = store.further_fields(source.dtype)
    facts = SsfFacts.of(name, str(source.attributes.get("made_from", "{}")), covariates)
    return Exportable(facts, lambda start, stop: source.read(trait, start, stop), float(df), test, further)


def _open(options: Export) -> _Opened:
    """Open and check everything. On one rank, so that all raise the same error."""
    path, form = Path(options.store), store_format(options.store)
    if form == ENTRIES_FORMAT:
        entries = open_snps(path, bool(options.trait), options.formats)
        variants, same = _variants(options, entries)
        return _Opened(SnpsOfVoxels.of(entries, variants, options.tail == "gpd"), ("snps",), variants, same)
    source: store.ResultStore | dense_store.DenseStore
    if form == dense_store.FORMAT:
        source = dense_store.open_dense(path)
        names = source.names
    else:
        source = store.open_store(path)
        names = tuple(place.name for place in source.traits)
    chosen = _chosen(options, names)
    for trait in chosen.values():
        exportable(source, trait)
    variants, same = _variants(options, source)
    return _Opened(TablesOfTraits(source, variants, chosen), tuple(chosen), variants, same)


def _chosen(options: Export, names: tuple[str, ...]) -> dict[str, int]:
    """Positions of the traits to export, by name."""
    if not options.trait and len(names) > 1:
        raise UsageError(f"{options.store} holds {len(names):,} traits: choose with --trait ({_some(names)})")
    position = {name: k for k, name in enumerate(names)}
    wanted = part_names(options.trait, position) or names
    for name in wanted:
        if name not in position:
            raise UsageError(f"{options.store} has no trait {name!r}; its traits are {_some(names)}")
    return {name: position[name] for name in wanted}


def _variants(
    options: Export, source: store.ResultStore | dense_store.DenseStore | EntriesFile
) -> tuple[VariantRows, bool]:
    """The rows of the .bim that the store's rows belong to, and whether the file is the one of the run."""
    given = named_source(options)
    of_run = [GenotypeSource(flag, source.attributes.get(flag.lstrip("-").replace("-", "_"), "")) for flag in SOURCES]
    named = [given] if given is not None else [one for one in of_run if one.value]
    if not named:
        raise UsageError(f"{options.store} does not name its genotypes: give {' or '.join(SOURCES)}")
    genotypes = named[0]
    for path in genotypes.files(variants_only=True):
        check_regular(path)
    if given is None and not all(map(os.path.exists, genotypes.files(variants_only=True))):
        raise UsageError(f"the genotypes of {options.store} are no longer at {genotypes.value}: give {genotypes.flag}")
    variants = open_variants(genotypes)
    rows = source.attributes.get("bim_rows")
    needed = int(source.index[-1]) + 1 if source.count else 0
    if (rows is not None and int(rows) != variants.count) or needed > variants.count:
        expected = f"{int(rows):,}" if rows is not None else f"at least {needed:,}"
        raise InputError(f"{variants.path} lists {variants.count:,} SNPs, but {options.store} was made with {expected}")
    digest = source.attributes.get("bim_sha256")
    found = " ".join(file_identity(path)["sha256"] for path in variant_files(variants))
    return variants, digest in (None, found)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
