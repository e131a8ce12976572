"""``mpgls simulate``: PLINK files, traits and covariates with relatedness and linkage, of any size.

Blocks of SNPs are dealt round-robin to the ranks; each rank makes its blocks and writes them at their place in the
.bed. The bytes are the same on any number of ranks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import StorageError, UsageError
from mpgls.mpi import agree
from mpgls.run.hardware import memory_of_process
from mpgls.run.log import Log, Progress
from mpgls.run.plan import GIB
from mpgls.study.synthetic import Block, BlockMaker
from mpgls.study.synthetic_haplotypes import Families, Recipe
from mpgls.study.synthetic_traits import Traits, covariates, factors_for, pool_for

if TYPE_CHECKING:
    from mpi4py import MPI

BED_MAGIC = b"\x6c\x1b\x01"
SUFFIXES = ("bed", "bim", "pheno.tsv", "covar.tsv", "causal.tsv", "fam")
PART = ".part"


@dataclass(frozen=True)
class SimulateConfig:
    """Options of ``mpgls simulate``.

    ``samples`` n, ``snps`` m, ``out`` prefix of the files; ``h2`` heritability, of which ``causal_share`` comes from
    ``causal`` SNPs of each trait and the rest from all SNPs (50,000 spread evenly when there are more);
    ``family_size`` two parents and their children (1: unrelated); ``founders`` ancestral haplotypes; ``missing`` share
    of genotypes that are lost; ``covariates`` columns of the covariate table (0: no table).
    """

    samples: int
    snps: int
    out: str
    traits: int = 1
    h2: float = 0.5
    chromosomes: int = 22
    family_size: int = 4
    founders: int = 64
    missing: float = 0.0
    causal: int = 10
    causal_share: float = 0.2
    covariates: int = 2
    seed: int = 1

    def check(self) -> None:
        """Raise UsageError naming the first option that is out of range."""
        ranges: list[tuple[str, float, float, float]] = [
            ("samples", self.samples, 2, 2**31 - 1),
            ("snps", self.snps, 1, 2**40),
            ("traits", self.traits, 1, 1_000_000),
            ("h2", self.h2, 0, 1),
            ("chromosomes", self.chromosomes, 1, 1000),
            ("families", self.family_size, 1, self.samples),
            ("founders", self.founders, 4, 256),
            ("missing", self.missing, 0, 0.9),
            ("causal", self.causal, 0, min(self.snps, 10_000)),
            ("causal-share", self.causal_share, 0, 1),
            ("covariates", self.covariates, 0, 1000),
            ("seed", self.seed, 0, 2**63 - 1),
        ]
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise UsageError(f"--{name} must be between {low:,} and {high:,}, but it is {value}")
        if not self.out or self.out.endswith("/") or Path(self.out).is_dir():
            raise UsageError(f"--out must be a prefix for file names, but '{self.out}' is a directory or empty")

    def recipe(self) -> Recipe:
        """The genotypes that these options describe."""
        return Recipe(
            samples=self.samples,
            snps=self.snps,
            chromosomes=min(self.chromosomes, self.snps),
            family_size=self.family_size,
            founders=self.founders,
            missing=self.missing,
            factors=factors_for(self.traits),
            pool=pool_for(self.traits, self.causal),
            seed=self.seed,
        )

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The files of this run; the .fam comes last, so a set without it is not finished."""
        return tuple(s for s in SUFFIXES if self.covariates or s != "covar.tsv")


def run(config: SimulateConfig, comm: MPI.Comm) -> None:
    """Write the files of ``config``. Collective; raises UsageError or StorageError on every rank."""
    config.check()
    log = Log(comm.rank)
    recipe = config.recipe()
    log.info(
        f"simulate {config.samples:,} samples x {config.snps:,} SNPs on {comm.size} ranks: "
        f"{len(recipe.blocks):,} blocks, {recipe.snp_bytes * recipe.snps / GIB:.3f} GiB of genotypes"
    )
    start = time.perf_counter()
    try:
        _create(config, recipe, comm)
        maker = BlockMaker(recipe)
        _genotypes(config, maker, comm, log)
        seconds = time.perf_counter() - start
        rate = config.samples * config.snps / seconds
        log.info(f"genotypes written in {seconds:.1f} s: {rate:.3g} genotypes/s, {rate / comm.size:.3g} a rank")
        _traits(config, maker, comm)
        _publish(config, comm)
    except BaseException:
        if comm.rank == 0:
            for path in _parts(config):
                path.unlink(missing_ok=True)
        raise
    log.info(f"wrote {config.out}.{{{','.join(config.suffixes)}}}")
    peak = comm.reduce(memory_of_process()["peak_rss"], op=max, root=0)
    log.info(f"done in {time.perf_counter() - start:.1f} s, peak memory {(peak or 0) / GIB:.2f} GiB a rank at most")


def _part(config: SimulateConfig, suffix: str) -> Path:
    return Path(f"{config.out}.{suffix}{PART}")


def _parts(config: SimulateConfig) -> list[Path]:
    return [_part(config, suffix) for suffix in config.suffixes]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the system as one that names the file."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


def _create(config: SimulateConfig, recipe: Recipe, comm: MPI.Comm) -> None:
    """Rank 0 creates the .bed with its final size, and the .bim."""
    problem: Exception | None = None
    if comm.rank == 0:
        try:
            bed, bim = _part(config, "bed"), _part(config, "bim")
            with _writing(bed), open(bed, "wb") as out:
                out.write(BED_MAGIC)
                out.truncate(len(BED_MAGIC) + recipe.snps * recipe.snp_bytes)
            with _writing(bim), open(bim, "wb"):
                pass
        except StorageError as error:
            problem = error
    agree(comm, problem)


def _genotypes(config: SimulateConfig, maker: BlockMaker, comm: MPI.Comm, log: Log) -> None:
    """Make and write all blocks, one a rank and round; the rounds settle where each block's .bim lines go."""
    recipe = maker.recipe
    bed, bim = _part(config, "bed"), _part(config, "bim")
    progress = Progress(log, "genotypes", recipe.snps, "SNPs")
    bim_end = 0
    for first in range(0, len(recipe.blocks), comm.size):
        problem: Exception | None = None
        block: Block | None = None
        try:
            if first + comm.rank < len(recipe.blocks):
                block = maker.make(first + comm.rank)
                _write_at(bed, block.packed.reshape(-1).data, len(BED_MAGIC) + block.start * recipe.snp_bytes)
        except Exception as error:  # every rank must reach agree()
            problem = error
        agree(comm, problem)
        lengths = comm.allgather(len(block.bim) if block else 0)
        try:
            if block:
                _write_at(bim, block.bim, bim_end + sum(lengths[: comm.rank]))
        except StorageError as error:
            problem = error
        agree(comm, problem)
        bim_end += sum(lengths)
        progress.at(recipe.blocks[min(first + comm.size, len(recipe.blocks)) - 1][2])


def _write_at(path: Path, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset`` of the existing file ``path``."""
    with _writing(path):
        handle = os.open(path, os.O_WRONLY)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(handle, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(handle)


def _traits(config: SimulateConfig, maker: BlockMaker, comm: MPI.Comm) -> None:
    """Sum the genetic values over ranks (integers: exact in any order); rank 0 writes the tables."""
    for rows in (maker.polygenic, maker.dosages):
        for row in rows:
            total = np.empty_like(row) if comm.rank == 0 else None
            comm.Reduce(row, total, root=0)
            if total is not None:
                row[:] = total
    problem: Exception | None = None
    if comm.rank == 0:
        try:
            _tables(config, maker)
        except Exception as error:
            problem = error
    agree(comm, problem)


def _tables(config: SimulateConfig, maker: BlockMaker) -> None:
    families = maker.families
    traits = Traits(
        maker.recipe, maker.polygenic, maker.dosages, config.traits, config.h2, config.causal, config.causal_share
    )
    ids = _ids(families)
    _phenotypes(config, traits, families, ids)
    causal = _part(config, "causal.tsv")
    with _writing(causal), open(causal, "w", encoding="ascii") as out:
        out.write("trait\tSNP\teffect\n")
        out.writelines(f"trait{j + 1}\trs{snp + 1}\t{effect:.8g}\n" for j, snp, effect in traits.causal_rows())
    if config.covariates:
        path = _part(config, "covar.tsv")
        table = covariates(maker.recipe, families, config.covariates)
        with _writing(path), open(path, "w", encoding="ascii") as out:
            out.write("\t".join(["FID", "IID", *(f"covar{k + 1}" for k in range(config.covariates))]) + "\n")
            for (fid, iid), row in zip(ids, table.tolist(), strict=True):
                out.write("\t".join([fid, iid, *(f"{value:.6g}" for value in row)]) + "\n")


def _ids(families: Families) -> list[tuple[str, str]]:
    """FID and IID of every sample."""
    pairs = zip(families.family.tolist(), families.member.tolist(), strict=True)
    return [(f"F{family + 1}", f"F{family + 1}_{member + 1}") for family, member in pairs]


def _phenotypes(config: SimulateConfig, traits: Traits, families: Families, ids: list[tuple[str, str]]) -> None:
    """The trait table and the .fam, whose sixth column is the first trait."""
    pheno, fam = _part(config, "pheno.tsv"), _part(config, "fam")
    sexes = families.sexes(config.seed).tolist()
    parents = [
        [ids[p][1] if p >= 0 else "0" for p in pair]
        for pair in zip(families.father.tolist(), families.mother.tolist(), strict=True)
    ]
    with (
        _writing(pheno),
        open(pheno, "w", encoding="ascii") as table,
        _writing(fam),
        open(fam, "w", encoding="ascii") as samples,
    ):
        table.write("\t".join(["FID", "IID", *(f"trait{j + 1}" for j in range(config.traits))]) + "\n")
        for start, values in traits.slabs():
            for k, row in enumerate(values.tolist(), start=start):
                text = [f"{value:.8g}" for value in row]
                table.write("\t".join([*ids[k], *text]) + "\n")
                samples.write(" ".join([*ids[k], *parents[k], str(sexes[k]), text[0]]) + "\n")


def _publish(config: SimulateConfig, comm: MPI.Comm) -> None:
    """Give the finished files their names, after removing a .fam of an earlier run that would vouch for them."""
    problem: Exception | None = None
    if comm.rank == 0:
        try:
            with _writing(Path(f"{config.out}.fam")):
                Path(f"{config.out}.fam").unlink(missing_ok=True)
            for suffix in config.suffixes:
                with _writing(Path(f"{config.out}.{suffix}")):
                    os.replace(_part(config, suffix), f"{config.out}.{suffix}")
        except StorageError as error:
            problem = error
    agree(comm, problem)
