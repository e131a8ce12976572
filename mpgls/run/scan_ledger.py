"""The result store of a scan, made or opened again."""

from __future__ import annotations

import dataclasses

import numpy as np

from mpgls.errors import InputError
from mpgls.report.blup_table import ROW_BYTES
from mpgls.report.figure import PICTURE_BYTES
from mpgls.report.file_names import BESIDE_TABLE, ENDINGS_OF_TRAIT, trait_parts
from mpgls.report.table import FIGURES_BYTES, FIGURES_BYTES_EACH, table_bytes
from mpgls.report.table_formats import endings_of, table_sizes
from mpgls.report.weights_table import NUMBER_BYTES
from mpgls.run.inputs import Study, selected_rows
from mpgls.run.job import Job
from mpgls.run.option_groups import TraitScanOptions
from mpgls.run.outputs import remove
from mpgls.run.plan import block_within
from mpgls.run.slots import ScanLedger
from mpgls.run.world import World
from mpgls.stream.store import ResultStore, StoreShape, create_store, further_of, open_store, record_dtype
from mpgls.study.checksums import ABSENT
from mpgls.study.snp_columns import columns_of_all


def planned_block(options: TraitScanOptions, study: Study, job: Job) -> int | None:
    """The SNPs of a block that the plan must take: the resumed store's, or --block-size; None: any. Collective.

    Raises InputError where both are there and differ.
    """
    path, wanted = job.path(".h5"), block_within(options.block_size, study.selected)

    def look() -> int | None:
        if not (job.resume and path.exists()):
            return wanted
        block = open_store(path).block
        if wanted is not None and wanted != block:
            raise InputError(
                f"{path} was made in blocks of {block} SNPs, so it cannot be resumed with --block-size {wanted}"
            )
        return block

    return job.world.on_root(look)


def scan_bytes(options: TraitScanOptions, study: Study) -> dict[str, int]:
    """Bytes of the files of a scan, by name, about."""
    traits, m = list(study.cohorts), study.selected
    fields = record_fields(options, study)
    sizes = {".h5": m * (8 + record_dtype(fields).itemsize * len(traits))}
    for part in trait_parts(traits):
        nbytes = table_bytes(study.fileset.variants, m, FIGURES_BYTES + FIGURES_BYTES_EACH * len(fields))
        sizes |= table_sizes(f".{part}", options.formats, nbytes)
        if options.blup:
            weights = table_bytes(study.fileset.variants, m, 12 + 2 * NUMBER_BYTES)
            sizes |= {f".{part}.blup.tsv": ROW_BYTES * study.samples.size, f".{part}.weights.tsv": weights}
        if not options.no_plots:
            sizes |= {f".{part}.{name}.png": PICTURE_BYTES for name in ("manhattan", "qq")}
    return sizes


def open_ledger(
    options: TraitScanOptions, study: Study, block: int, edges: np.ndarray, given: np.ndarray, job: Job, pcs: int = 0
) -> ScanLedger:
    """Create the result store, or open the one to resume. Collective.

    The selected SNPs are cut at ``edges`` (blocks+1,) into blocks of at most ``block``; ``given`` (parts, traits) is h2
    where the user gave it; ``pcs`` components follow the covariates. A fresh run removes the tables and plots of an
    earlier one. Raises InputError when the store to resume was made from others, UsageError when a table would
    overwrite an input or a file that the command did not make.
    """
    index, path = selected_rows(study, job.world), job.path(".h5")
    components = [f"PC{k + 1}" for k in range(pcs)]
    covariates = {name: [*cohort.covariate_names, *components] for name, cohort in study.cohorts.items()}
    parts, endings = trait_parts(list(study.cohorts)), [*endings_of(options.formats), *BESIDE_TABLE]
    made = [f".{part}{ending}" for part in parts for ending in endings]
    earlier = [f".{part}{ending}" for part in parts for ending in ENDINGS_OF_TRAIT]

    def make() -> ResultStore:
        if job.resume and path.exists():
            store = open_store(path, job.mark)
            job.outputs.claim(made)
            return store
        job.outputs.claim(made)
        job.starts_anew(path)
        remove(job.prefix + suffix for suffix in earlier if suffix in job.outputs.known)
        shape = StoreShape(index, block, edges, covariates, len(given), record_dtype(record_fields(options, study)))
        return create_store(path, shape, job.mark, study.origin(job.identities) | {"test": options.snp_test.test})

    store = job.world.on_root(make)
    if job.resume:
        store = whole_blocks(store, job.world)
    columns = columns_of_all(study.cohorts, options.columns)
    if columns.count > 1:
        job.world.log.info(columns.text)
    reasons = study.reasons(options.snps)
    return ScanLedger(store, reasons, options.checkpoint, job.world, given, columns.count)


def record_fields(options: TraitScanOptions, study: Study) -> tuple[str, ...]:
    """The fields of a SNP's record beyond effect and error; raises as `columns_of_all` does."""
    from mpgls.model.snp_ratio import fields_of

    model = columns_of_all(study.cohorts, options.columns).model
    of_test = fields_of(options.snp_test) if model is None else model.fields(options.snp_test)
    return further_of(study.fileset.bed.dosages, of_test)


def whole_blocks(store: ResultStore, world: World) -> ResultStore:
    """The store to resume, in which blocks count as done only if they and their null models are what was written.

    Collective.
    """
    from mpi4py import MPI

    places, damaged = [], int(store.nulls.damaged.sum())
    for trait, place in enumerate(store.traits):
        whole = np.ones(store.blocks, dtype=bool)
        mine = np.flatnonzero(place.done)[world.rank :: world.size].tolist()
        whole[mine] = [store.is_whole(trait, block) for block in mine]
        world.comm.Allreduce(MPI.IN_PLACE, whole, op=MPI.LAND)
        damaged += int(np.count_nonzero(~whole))
        whole &= not store.nulls.damaged[:, trait].any()  # a scan makes the null model, so there must be one
        places.append(dataclasses.replace(place, sums=np.where(whole, place.sums, ABSENT)))
    done = sum(int(place.done.sum()) for place in places)
    world.log.info(f"resume: {done:,} of {store.blocks * len(places):,} blocks are done in {store.path}")
    if damaged:
        world.log.warn(f"{store.path}: {damaged:,} parts changed on disk since they were written: they are made again")
    return dataclasses.replace(store, traits=tuple(places))
