"""The store of a scan, made or opened again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mpgls.errors import InputError
from mpgls.run.inputs import Study
from mpgls.run.job import Job, refuse_overwriting
from mpgls.run.slots import ScanLedger
from mpgls.stream.store import ResultStore, StoreShape, create_store, open_store
from mpgls.study.filters import SnpFilter

OUTPUTS_OF_TRAIT = (".tsv", ".loco.tsv", ".manhattan.png", ".qq.png")


def stored_block(job: Job, wanted: int | None) -> int | None:
    """The SNPs of a block: those of the store that this run resumes, else the ``wanted`` ones. Collective.

    Raises InputError where both are there and differ.
    """
    path = job.path(".h5")

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


def open_ledger(
    job: Job, study: Study, shape: StoreShape, attributes: Mapping[str, str], snps: SnpFilter, checkpoint: float
) -> ScanLedger:
    """Create the result store, or open the one to resume. Collective.

    Raises InputError when the store to resume was made from others, UsageError when a table would overwrite an input. A
    fresh run removes the tables and plots of an earlier one.
    """
    made = [str(job.path(f".{trait}{suffix}")) for trait in study.cohorts for suffix in OUTPUTS_OF_TRAIT]

    def make() -> ResultStore:
        path = job.path(".h5")
        refuse_overwriting(made, [one["path"] for one in job.identities])
        if job.resume and path.exists():
            store = open_store(path, job.mark)
            done = sum(int(place.done.sum()) for place in store.traits)
            job.world.log.info(f"resume: {done:,} of {store.blocks * len(store.traits):,} blocks are done in {path}")
            return store
        job.starts_anew(path)
        for name in made:
            Path(name).unlink(missing_ok=True)
        return create_store(path, shape, job.mark, study.origin(job.identities) | dict(attributes))

    return ScanLedger(job.world.on_root(make), snps, checkpoint, job.world)


def shape_of(
    index: np.ndarray, block: int, edges: np.ndarray, parts: int, covariates: Mapping[str, Sequence[str]], pcs: int = 0
) -> StoreShape:
    """What the store holds; ``pcs`` components follow the ``covariates`` of each trait."""
    components = [f"PC{k + 1}" for k in range(pcs)]
    named = {trait: [*names, *components] for trait, names in covariates.items()}
    return StoreShape(index, block, edges, named, parts)
