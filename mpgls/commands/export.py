"""mpgls export: one trait of a result store as a table, the same that single-trait writes.

The store is a dense one of multi-trait (``--dense``) or that of single-trait. All ranks format and write together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.session import RunOptions
from mpgls.errors import InputError, UsageError
from mpgls.mpi import on_root
from mpgls.report.table import write_table
from mpgls.run.identity import file_identity
from mpgls.run.log import Log, duration
from mpgls.stream import dense_store, store
from mpgls.stream.hdf5 import store_format
from mpgls.study.plink import VariantTable

if TYPE_CHECKING:
    from mpi4py import MPI

_WHY_ABSENT = "it was made by an earlier version, or by a run that did not get that far"


@dataclass(frozen=True)
class ExportConfig:
    """Options of ``mpgls export``: ``bfile`` overrides the fileset that the store names."""

    run: RunOptions
    store: str
    traits: tuple[str, ...] = ()
    bfile: str | None = None


@dataclass(frozen=True)
class Exportable:
    """One complete trait of a store: ``read(start, stop)`` gives records of `mpgls.stream.store`."""

    name: str
    read: Callable[[int, int], np.ndarray]
    df: float
    test: str


@dataclass(frozen=True)
class _Opened:
    source: store.ResultStore | dense_store.DenseStore
    variants: VariantTable
    traits: tuple[int, ...]
    same_bim: bool


def run(config: ExportConfig, comm: MPI.Comm) -> None:
    """Write ``OUT.tsv``, or ``OUT.TRAIT.tsv`` for each of several traits. Collective.

    Raises MpglsError, the same on all ranks, before anything is written if a trait is not there or incomplete.
    """
    log = Log(comm.rank)
    opened = on_root(comm, lambda: _open(config))
    if not opened.same_bim:
        log.warn(
            f"{opened.variants.path} is not the .bim that {config.store} was made with: its rows are taken to be the "
            "same SNPs in the same order"
        )
    chosen = [exportable(opened.source, trait) for trait in opened.traits]
    for trait in chosen:
        path = Path(f"{config.run.out}.tsv" if len(chosen) == 1 else f"{config.run.out}.{trait.name}.tsv")
        start = log.seconds()
        size = write_table(
            comm,
            path,
            opened.variants,
            trait.read,
            opened.source.count,
            trait.df,
            trait.test,
            index=opened.source.index,
        )
        log.info(f"{trait.name}: {opened.source.count:,} SNPs, {size / 1e6:,.1f} MB in {path}")
        log.info(f"done in {duration(log.seconds() - start)}")


def exportable(source: store.ResultStore | dense_store.DenseStore, trait: int) -> Exportable:
    """The trait at position ``trait``; InputError if it is incomplete or was not tested."""
    if isinstance(source, dense_store.DenseStore):
        name, done, df, test = source.names[trait], source.done_of(trait), source.values["df"][trait], source.test
        if np.isnan(source.values["s2"][trait]) and done.all():
            raise InputError(f"trait {name!r} of {source.path} was not tested: its row of the .traits.tsv says why")
        df = df if df > 0 else None
    else:
        place = source.traits[trait]
        name, done = place.name, place.done
        df, test = place.attributes.get("df"), str(source.attributes.get("test", ""))
    if not done.all():
        raise InputError(
            f"trait {name!r} of {source.path} is incomplete: {int(done.sum()):,} of {done.size:,} blocks are done; "
            "finish the run with --resume"
        )
    if df is None or not test:
        missing = "the test" if not test else "the degrees of freedom"
        raise InputError(f"{source.path} does not say {missing} of trait {name!r}: {_WHY_ABSENT}")
    return Exportable(name, lambda start, stop: source.read(trait, start, stop), float(df), test)


def _open(config: ExportConfig) -> _Opened:
    """Open and check everything. On one rank, so that all raise the same error."""
    path = Path(config.store)
    source: store.ResultStore | dense_store.DenseStore
    if store_format(path) == dense_store.FORMAT:
        source = dense_store.open_dense(path)
        names = source.names
    else:
        source = store.open_store(path)
        names = tuple(place.name for place in source.traits)
    chosen = _chosen(config, names)
    for trait in chosen:
        exportable(source, trait)
    variants, digest = _variants(config, source), source.attributes.get("bim_sha256")
    return _Opened(source, variants, chosen, digest is None or digest == file_identity(variants.path)["sha256"])


def _chosen(config: ExportConfig, names: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of the traits to export."""
    if not config.traits and len(names) > 1:
        raise UsageError(f"{config.store} holds {len(names):,} traits: choose with --trait ({_some(names)})")
    position = {name: k for k, name in enumerate(names)}
    for name in config.traits:
        if name not in position:
            raise UsageError(f"{config.store} has no trait {name!r}; its traits are {_some(names)}")
    return tuple(dict.fromkeys(position[name] for name in config.traits or names))


def _variants(config: ExportConfig, source: store.ResultStore | dense_store.DenseStore) -> VariantTable:
    """The .bim that the store's rows belong to."""
    bfile = config.bfile or source.attributes.get("bfile")
    if not bfile:
        raise UsageError(f"{config.store} does not name its genotypes: give --bfile")
    bim = f"{bfile}.bim"
    if config.bfile is None and not os.path.exists(bim):
        raise UsageError(f"the genotypes of {config.store} are no longer at {bfile}: give --bfile")
    variants = VariantTable.open(bim)
    rows = source.attributes.get("bim_rows")
    needed = int(source.index[-1]) + 1 if source.count else 0
    if (rows is not None and int(rows) != variants.count) or needed > variants.count:
        expected = f"{int(rows):,}" if rows is not None else f"at least {needed:,}"
        raise InputError(f"{bim} lists {variants.count:,} SNPs, but {config.store} was made with {expected}")
    return variants


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
