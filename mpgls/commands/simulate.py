"""``mpgls simulate``: PLINK files, traits and covariates with relatedness and linkage, of any size.

Blocks of SNPs are dealt round-robin to the ranks; each rank makes its blocks and writes them at their place in the
.bed. The bytes are the same on any number of ranks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import UsageError
from mpgls.run.job import open_job
from mpgls.run.option_groups import OutputOptions
from mpgls.run.options import Check, at_least, between, option, required
from mpgls.run.plan import GIB
from mpgls.run.results import Results
from mpgls.run.world import World
from mpgls.stream.files import replaced, replaced_by_all, write_at, write_text, writing
from mpgls.study.synthetic import BlockMaker
from mpgls.study.synthetic_haplotypes import Recipe
from mpgls.study.synthetic_tables import SampleNames, causal_lines, covariate_lines, trait_rows
from mpgls.study.synthetic_traits import Traits, covariates, factors_for, pool_for

if TYPE_CHECKING:
    from mpi4py import MPI

BED_MAGIC = b"\x6c\x1b\x01"
SUFFIXES = (".bed", ".bim", ".fam", ".pheno.tsv", ".covar.tsv", ".causal.tsv")
MOST_CAUSAL = 10_000
VALUE_BYTES = 12
"""Bytes of a number in a table, about."""


@dataclass(frozen=True, kw_only=True)
class Simulate(OutputOptions):
    """Options of ``mpgls simulate``.

    ``causal_share`` of the heritability comes from the ``causal`` SNPs of a trait, the rest from all SNPs (50,000
    spread evenly when there are more). A family is two parents and their children; families of one are unrelated.
    """

    command = "simulate"
    summary = "PLINK genotypes with families and linkage, and traits with a polygenic background"
    example = "mpirun -n 4 mpgls simulate --samples 4000 --snps 20000 --seed 1 --out sim"

    samples: int = required("number of samples", metavar="N", check=between(2, 2**31 - 1))
    snps: int = required("number of SNPs", metavar="M", check=between(1, 2**40))
    traits: int = option(1, "number of traits (1)", metavar="T", check=between(1, 1_000_000))
    h2: float = option(0.5, "heritability of every trait (0.5)", metavar="X", check=between(0, 1))
    chromosomes: int = option(22, "number of chromosomes (22)", metavar="C", check=between(1, 1000))
    families: int = option(4, "members of a family, parents first (4)", metavar="SIZE", check=at_least(1))
    founders: int = option(64, "ancestral haplotypes (64)", metavar="F", check=between(4, 256))
    missing: float = option(0.0, "share of missing genotypes (0)", metavar="SHARE", check=between(0, 0.9))
    causal: int = option(
        10, "causal SNPs of each trait (10)", metavar="C", check=Check("not negative", lambda c: c >= 0)
    )
    causal_share: float = option(0.2, "their share of h2 (0.2)", metavar="S", check=between(0, 1))
    covariates: int = option(2, "columns of the covariate table (2)", metavar="Q", check=between(0, 1000))
    seed: int = option(1, "the same seed makes the same bytes (1)", metavar="S", check=between(0, 2**63 - 1))

    def check(self) -> None:
        super().check()
        most = min(self.snps, MOST_CAUSAL)
        if self.causal > most:
            raise UsageError(f"--causal must be from 0 to {most:,}, not {self.causal}")
        if self.families > self.samples:
            raise UsageError(f"--families must be from 1 to --samples, {self.samples:,}, not {self.families}")

    def recipe(self) -> Recipe:
        """The genotypes that these options describe."""
        return Recipe(
            samples=self.samples,
            snps=self.snps,
            chromosomes=min(self.chromosomes, self.snps),
            family_size=self.families,
            founders=self.founders,
            missing=self.missing,
            factors=factors_for(self.traits),
            pool=pool_for(self.traits, self.causal),
            seed=self.seed,
        )

    def suffixes(self) -> tuple[str, ...]:
        """Of the files of this run."""
        return tuple(suffix for suffix in SUFFIXES if self.covariates or suffix != ".covar.tsv")


def run(options: Simulate, comm: MPI.Comm) -> Results:
    """Write the files. Collective; raises UsageError or StorageError on every rank."""
    with open_job(options, comm, SUFFIXES) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("recipe"):
            recipe = options.recipe()
            world.log.info(
                f"simulate {options.samples:,} samples x {options.snps:,} SNPs: {len(recipe.blocks):,} blocks, "
                f"{recipe.snp_bytes * recipe.snps / GIB:.3f} GiB of genotypes"
            )
            job.check_room(file_bytes(options, recipe))
            maker = BlockMaker(recipe)
        with (
            world.phase("write"),
            replaced_by_all(comm, job.path(".bed")) as bed,
            replaced_by_all(comm, job.path(".bim")) as bim,
        ):
            with world.phase("genotypes", nbytes=recipe.snp_bytes * recipe.snps / comm.size):
                write_genotypes(maker, bed, bim, world)
            with world.phase("traits"):
                sum_over_ranks(maker, comm)
                world.on_root(lambda: write_tables(options, maker))
        return job.finish(
            {"samples": options.samples, "snps": options.snps},
            files=[job.path(suffix) for suffix in options.suffixes()],
            tables={suffix[1:-4]: job.path(suffix) for suffix in options.suffixes() if suffix.endswith(".tsv")},
        )


def file_bytes(options: Simulate, recipe: Recipe) -> dict[str, int]:
    """Bytes of the files of a run, by name, about."""
    n, person = options.samples, 2 * len(f"F{options.samples}\t")
    sizes = {
        ".bed": recipe.snp_bytes * recipe.snps,
        ".bim": recipe.snps * len(f"1\trs{recipe.snps}\t0\t100000000\tG\tA\n"),
    }
    sizes |= {".fam": n * (person + VALUE_BYTES), ".pheno.tsv": n * (person + VALUE_BYTES * options.traits)}
    return sizes | {".covar.tsv": n * (person + VALUE_BYTES * options.covariates) if options.covariates else 0}


def write_genotypes(maker: BlockMaker, bed: Path, bim: Path, world: World) -> None:
    """Make and write all blocks, one a rank and round; the rounds settle where each block's .bim lines go."""
    recipe, comm = maker.recipe, world.comm

    def create() -> None:
        with writing(bed), open(bed, "r+b") as out:
            out.write(BED_MAGIC)
            out.truncate(len(BED_MAGIC) + recipe.snps * recipe.snp_bytes)

    world.on_root(create)
    progress = world.progress("genotypes", recipe.snps, "SNPs")
    bim_end = 0
    for first in range(0, len(recipe.blocks), comm.size):
        lines = b""
        with world.together(stop=True):
            if first + comm.rank < len(recipe.blocks):
                block = maker.make(first + comm.rank)
                lines = block.bim
                _write_at(bed, block.packed.reshape(-1).data, len(BED_MAGIC) + block.start * recipe.snp_bytes)
        lengths = comm.allgather(len(lines))
        with world.together():
            _write_at(bim, lines, bim_end + sum(lengths[: comm.rank]))
        bim_end += sum(lengths)
        progress.at(recipe.blocks[min(first + comm.size, len(recipe.blocks)) - 1][2])


def _write_at(path: Path, data: bytes | memoryview, offset: int) -> None:
    with writing(path):
        handle = os.open(path, os.O_WRONLY)
        try:
            write_at(handle, data, offset)
        finally:
            os.close(handle)


def sum_over_ranks(maker: BlockMaker, comm: MPI.Comm) -> None:
    """The genetic values of all blocks, on rank 0. They are integers: exact in any order of summation."""
    for rows in (maker.polygenic, maker.dosages):
        for row in rows:
            total = np.empty_like(row) if comm.rank == 0 else None
            comm.Reduce(row, total, root=0)
            if total is not None:
                row[:] = total


def write_tables(options: Simulate, maker: BlockMaker) -> None:
    """Traits, covariates, causal SNPs and the .fam, whose sixth column is the first trait. On one rank."""
    traits = Traits(
        maker.recipe, maker.polygenic, maker.dosages, options.traits, options.h2, options.causal, options.causal_share
    )
    names, out = SampleNames(maker.families, options.seed), options.out
    with (
        replaced(f"{out}.fam") as fam,
        replaced(f"{out}.pheno.tsv") as pheno,
        open(fam, "w", encoding="ascii") as samples,
        open(pheno, "w", encoding="ascii") as table,
    ):
        table.write(names.header([f"trait{j + 1}" for j in range(options.traits)]))
        for k, texts in trait_rows(traits):
            table.write(names.row(k, texts))
            samples.write(names.fam(k, texts[0]))
    write_text(f"{out}.causal.tsv", causal_lines(traits))
    if options.covariates:
        values = covariates(maker.recipe, maker.families, options.covariates)
        write_text(f"{out}.covar.tsv", covariate_lines(names, values))
