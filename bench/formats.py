"""Genotype formats: genotypes a second through reading and decoding on one core, and the scan from each against a .bed.

The same genotypes lie in a .bed, a .pgen, a .pgen with dosages and a .bgen of 8 bits packed by zlib. First each is read
and decoded alone, on one core. Then the streamed scan of ``streamed_scan.py``, in mixed precision, reads each in turns:
while the solve hides the reading, a format costs what its decoding takes of the core.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import add_ranks, finish, guarded, make_parser, measure_on_ranks, parse_sizes, print_table, simulated

if TYPE_CHECKING:
    import argparse

    from mpi4py import MPI
    from streamed_scan import Scan

    from mpgls.study.genotype_files import Genotypes

FULL = {"samples": 8000, "snps": 16000}
QUICK = {"samples": 8000, "snps": 4000}
"""Fewer SNPs only: a solve hides more decoding the more samples there are."""
BLOCK = 512
"""SNPs that are read and decoded at a time."""
NOISE = 0.1
"""Standard deviation of dosages about genotypes."""


@dataclass
class Format:
    """One way to keep the genotypes, and what was measured of it."""

    name: str
    flag: str
    path: Path
    sample: str | None = None
    rate: float = 0.0
    seconds: float = float("nan")

    def open(self) -> Genotypes:
        """The opened files."""
        from mpgls.study.genotype_files import AS_STORED
        from mpgls.study.sources import GenotypeSource, open_genotypes

        return open_genotypes(GenotypeSource(self.flag, str(self.path), AS_STORED, self.sample)).bed


def main() -> None:
    parser = make_parser(__doc__)
    add_ranks(parser, 5)
    options = parse_sizes(parser, FULL, QUICK)
    measure_on_ranks(options, on_ranks)


def on_ranks(options: argparse.Namespace) -> None:
    """The whole benchmark on the ranks that there are; rank 0 reports."""
    from mpi4py import MPI
    from streamed_scan import Problem, Scan

    from mpgls.run.hardware import limit_threads

    comm = MPI.COMM_WORLD
    limit_threads(comm.Split_type(MPI.COMM_TYPE_SHARED), None)
    prefix = simulated(options.scratch, options.samples, options.snps, comm)
    formats = made(prefix, comm)
    for one in formats:
        one.rate = stream_rate(one.open(), comm)
    problem = Problem(comm, prefix, 4, options.scratch)
    scans = []
    for one in formats:
        own = copy.copy(problem)
        own.bed, own.scratch = comm.bcast(one.open() if comm.rank == 0 else None), options.scratch / f"scan-{one.name}"
        own.scratch.mkdir(exist_ok=True)
        scans.append(Scan(own, 1, "mixed"))
    ratios = scan_ratios(formats, scans, options.repeats)
    if comm.rank == 0:
        report(formats, ratios, options)
    for scan in scans:
        scan.close()
    problem.grid.close()


def made(prefix: Path, comm: MPI.Comm) -> list[Format]:
    """The files of all formats; what is not there yet, rank 0 writes."""
    soft = prefix.with_name(f"{prefix.name}-dosages")
    if comm.rank == 0:
        for path, write in ((prefix, write_pgen), (soft, write_dosages), (soft, write_bgen)):
            write(prefix, path)
    comm.Barrier()
    sample = f"{soft}.sample"
    return [
        Format("bed", "--bfile", prefix),
        Format("pgen", "--pfile", prefix),
        Format("pgen_dosages", "--pfile", soft),
        Format("bgen", "--bgen", soft.with_name(f"{soft.name}.bgen"), sample),
    ]


def write_pgen(prefix: Path, path: Path) -> None:
    """``path``.pgen of the hard calls of ``prefix``.bed, with its .pvar and .psam."""
    import pgenlib

    if not Path(f"{path}.pgen").exists():
        with pgenlib.PgenReader(f"{prefix}.bed".encode(), sample_count(prefix)) as source:
            n, m = source.get_raw_sample_ct(), source.get_variant_ct()
            calls = np.empty(n, dtype=np.int8)
            with pgenlib.PgenWriter(f"{path}.pgen".encode(), n, variant_ct=m, nonref_flags=False) as writer:
                for k in range(m):
                    source.read(k, calls)
                    writer.append_biallelic(calls)
        write_tables(prefix, path)


def write_dosages(prefix: Path, path: Path) -> None:
    """``path``.pgen of dosages about the genotypes of ``prefix``.bed."""
    import pgenlib

    if not Path(f"{path}.pgen").exists():
        with pgenlib.PgenReader(f"{prefix}.bed".encode(), sample_count(prefix)) as source:
            n, m = source.get_raw_sample_ct(), source.get_variant_ct()
            options: dict[str, Any] = {"variant_ct": m, "nonref_flags": False, "dosage_present": True}
            with pgenlib.PgenWriter(f"{path}.pgen".encode(), n, **options) as writer:
                for dosages in noisy(source, n, m):
                    writer.append_dosages(np.nan_to_num(dosages, nan=-9.0))
        write_tables(prefix, path)


def write_bgen(prefix: Path, path: Path) -> None:
    """``path``.bgen of the same dosages, 8 bits, packed by zlib, with its .sample."""
    import bgen
    import pgenlib

    if Path(f"{path}.bgen").exists():
        return
    with pgenlib.PgenReader(f"{prefix}.bed".encode(), sample_count(prefix)) as source:
        n, m = source.get_raw_sample_ct(), source.get_variant_ct()
        with bgen.BgenWriter(f"{path}.bgen", n, compression="zlib") as writer:
            for k, dosages in enumerate(noisy(source, n, m)):
                two = np.maximum(dosages - 1, 0)
                one = dosages - 2 * two
                probabilities = np.column_stack([1 - one - two, one, two]).astype(np.float64)
                writer.add_variant("", f"rs{k}", "1", k + 1, ["A", "C"], probabilities)
    people = [line.split()[:2] for line in Path(f"{prefix}.fam").read_text().splitlines()]
    lines = ["ID_1 ID_2 missing", "0 0 0", *(f"{fid} {iid} 0" for fid, iid in people)]
    Path(f"{path}.sample").write_text("\n".join(lines) + "\n")


def noisy(source: Any, n: int, m: int) -> Any:
    """Dosages (n,) float32 about the genotypes of each SNP of a reader, NaN where missing."""
    rng, calls = np.random.default_rng(1), np.empty(n, dtype=np.int8)
    for k in range(m):
        source.read(k, calls)
        dosages = np.clip(calls + rng.normal(0, NOISE, n), 0, 2).astype(np.float32)
        yield np.where(calls < 0, np.float32(np.nan), dosages)


def sample_count(prefix: Path) -> int:
    """Samples of a .fam."""
    return len(Path(f"{prefix}.fam").read_text().splitlines())


def write_tables(prefix: Path, path: Path) -> None:
    """The .pvar and the .psam of a .bim and a .fam."""
    rows = [line.split() for line in Path(f"{prefix}.bim").read_text().splitlines()]
    lines = ["#CHROM\tPOS\tID\tREF\tALT", *("\t".join([row[0], row[3], row[1], row[5], row[4]]) for row in rows)]
    Path(f"{path}.pvar").write_text("\n".join(lines) + "\n")
    people = [line.split()[:2] for line in Path(f"{prefix}.fam").read_text().splitlines()]
    Path(f"{path}.psam").write_text("\n".join(["#FID\tIID", *map("\t".join, people)]) + "\n")


def stream_rate(genotypes: Genotypes, comm: MPI.Comm) -> float:
    """Genotypes a second and core through reading and decoding, by the processor's clock; the median of the ranks."""
    from mpi4py import MPI

    from mpgls.stream.packed import read_snps
    from mpgls.study.genotypes import Decoder

    blocks = [np.arange(first, min(first + BLOCK, genotypes.m)) for first in range(0, genotypes.m, BLOCK)]
    decoder = Decoder(genotypes.n, [np.arange(genotypes.n)], np.float32)
    out: np.ndarray = np.zeros((genotypes.n, BLOCK), dtype=np.float32, order="F")
    seconds = []
    for _ in range(2):  # the first pass also brings the file into memory
        start = time.process_time()
        for _, rows in read_snps(genotypes, blocks, MPI.COMM_SELF):
            decoder.decode(rows, [out[:, : len(rows)]])
        seconds.append(time.process_time() - start)
    return float(np.median(comm.allgather(genotypes.n * genotypes.m / seconds[-1])))


def scan_ratios(formats: list[Format], scans: list[Scan], repeats: int) -> list[float]:
    """Wall seconds of each format's scan over those of the first, the median over passes taken in turns."""
    passes = np.array([[scan.run().seconds for scan in scans] for _ in range(repeats)])
    for one, seconds in zip(formats, np.median(passes, axis=0).tolist(), strict=True):
        one.seconds = seconds
    return np.median(passes / passes[:, :1], axis=0).tolist()


def report(formats: list[Format], ratios: list[float], options: argparse.Namespace) -> None:
    """A table, and the JSON."""
    rows = [[one.name, one.rate / 1e9, one.seconds, ratio] for one, ratio in zip(formats, ratios, strict=True)]
    print_table(["format", "1e9 genotypes/s and core", "scan, s", "over .bed"], rows)
    results: dict[str, Any] = {"samples": options.samples, "snps": options.snps, "quick": options.quick}
    for one, ratio in zip(formats, ratios, strict=True):
        results[f"{one.name}_genotypes_per_s_per_core"] = one.rate
        if one is not formats[0]:
            results[f"{one.name}_over_bed"] = ratio
    finish(results, options.json)


if __name__ == "__main__":
    guarded(main)
