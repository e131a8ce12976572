"""mpgls merge: what jobs made of parts of the SNPs, such as one chromosome each, as if one job had made it.

tables     one after the other, in the order given
kinships   K = sum_f m_f K_f / sum_f m_f over the files f of m_f SNPs; the sums of --loco are kept
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpgls.engine.joined_kinships import KinshipParts
from mpgls.errors import UsageError
from mpgls.report.joined_tables import JOINED, TableParts
from mpgls.report.table_files import write_rows
from mpgls.report.table_formats import ALL_ENDINGS, made_files, table_paths, table_sizes
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import OutputOptions
from mpgls.run.options import option, the_file
from mpgls.run.results import Results
from mpgls.run.table_options import TableOptions

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, kw_only=True)
class Merge(TableOptions, OutputOptions):
    """Options of ``mpgls merge``."""

    command = "merge"
    summary = "tables or kinships of jobs that each took a part of the SNPs, as one"
    example = "mpgls merge --tables chr1.CD8.tsv chr2.CD8.tsv --out CD8"

    tables: tuple[str, ...] = option(
        (), "tables of summary statistics, in the order of the joined one", metavar="FILE", reads=the_file
    )
    kinships: tuple[str, ...] = option((), "PREFIX.h5 of mpgls kinship", metavar="FILE", reads=the_file)

    def check(self) -> None:
        super().check()
        if bool(self.tables) == bool(self.kinships):
            raise UsageError("merge needs either --tables or --kinships")
        if self.kinships and self.format != "tsv":
            raise UsageError("--format is of --tables: a kinship has one format")
        for files in (self.tables, self.kinships):
            twice = next((path for path in files if files.count(path) > 1), None)
            if twice is not None:
                raise UsageError(f"{twice} is given twice")


def run(options: Merge, comm: MPI.Comm) -> Results:
    """Join tables, or add kinships. Collective. Raises MpglsError, the same on all ranks."""
    suffixes = (".h5",) if options.kinships else ALL_ENDINGS
    with open_job(options, comm, suffixes) as job:
        if job.is_complete():
            return job.results()
        return add_kinships(options, job) if options.kinships else join_tables(options, job)


def add_kinships(options: Merge, job: Job) -> Results:
    """PREFIX.h5. Collective."""
    world, path = job.world, job.path(".h5")
    with world.phase("open and check"):
        parts = world.on_root(lambda: KinshipParts.open(options.kinships))
        job.identify()
        job.check_room({".h5": parts.nbytes})
    with world.phase("sum"):
        parts.join(path, world)
    world.log.info(f"kinship of {parts.n:,} samples and {parts.snps:,} SNPs of {len(parts.files)} files: {path}")
    loco = {label: snps for label, _, snps in parts.chromosomes.values()} or None
    return job.finish({"method": parts.method, "snps": parts.snps, "n": parts.n, "loco": loco}, files=[path])


def join_tables(options: Merge, job: Job) -> Results:
    """The table in every format that is wanted. Collective; rank 0 reads and writes, in one stream."""
    world, paths = job.world, table_paths(job.path(""), options.formats)
    with world.phase("open and check"):
        parts = world.on_root(lambda: TableParts.open(options.tables))
        job.identify()
        nbytes = world.on_root(lambda: sum(Path(path).stat().st_size for path in options.tables))
        job.check_room(table_sizes("", options.formats, nbytes))
    if parts.unknown:
        world.log.warn(
            f"there is no manifest beside {', '.join(parts.unknown)}: that all are of one analysis is not checked"
        )
    with world.phase("table"):
        notes = world.on_root(lambda: _write(parts, paths))
    table = paths[options.formats[0]]
    for line in (f"{parts.count:,} SNPs of {len(parts.paths)} tables: {table}", *notes):
        world.log.info(line)
    made = world.on_root(lambda: made_files(paths))
    return job.finish({"snps": parts.count, "job": parts.job}, files=made, tables={JOINED: table})


def _write(parts: TableParts, paths: dict[str, Path]) -> list[str]:
    from mpi4py import MPI

    return write_rows(MPI.COMM_SELF, paths, parts.table())
