"""The rates of a machine: GEMM, one short probe for each further kind of work of a scan, and its filesystem.

Every probe runs on all ranks at the same time, because the ranks of a node share its memory and its clock, and the
slowest rank counts. Each takes well below half a second. `mpgls.engine.rates` names them for a cost model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mpgls.run.filesystem import measure_filesystem
from mpgls.run.findings import Findings
from mpgls.run.hardware import gemm_rate
from mpgls.run.plan import grid_block
from mpgls.run.world import World

if TYPE_CHECKING:
    from mpi4py import MPI

POTRF_SIZE = 1536
"""Rows that the matrix of the Cholesky probe has for each process row."""
SAMPLES, SNPS = 20_000, 192
ROWS, COLUMNS = 1024, 512
ROUNDS = 3
EIGEN_SIZE = 768
"""Rows that the matrix of the eigendecomposition probe has, times the square root of the ranks."""
TILE_SNPS, TILE_TRAITS = 512, 1024
EXCHANGE_BYTES = 8 << 20
TOUCHED = 64 << 20

PRECISIONS = (("double", np.float64), ("single", np.float32))


def measure(found: Findings, world: World, node: MPI.Comm, directory: str, nbytes: int, full: bool = False) -> None:
    """What depends on the machine alone: the processors' rates and the filesystem's. Collective.

    ``nbytes`` of a file that each of the ``node``s writes in ``directory`` and reads; ``full`` measures longer and
    lists every rank.
    """
    _gemm(found, world, 4000 if full else 1500, every_rank=full)
    rates = processor_rates(world.comm)
    found.facts |= rates
    found.say("Work of each rank, all ranks at once", rate_lines(rates))
    measure_filesystem(found, world, node, directory, nbytes)


def _gemm(found: Findings, world: World, n: int, every_rank: bool) -> None:
    """GFLOP/s of each rank while all ranks multiply at the same time."""
    lines = []
    for name, dtype in (("double", "float64"), ("single", "float32")):
        world.comm.Barrier()
        rates = world.comm.gather(gemm_rate(dtype, n), root=0) or [0.0]
        found.facts[f"gemm_gflops_{name}"] = min(rates)
        found.facts[f"gemm_gflops_{name}_largest"] = max(rates)
        lines.append(f"{dtype:<14}{min(rates):.1f} GFLOP/s the slowest rank, {max(rates):.1f} the fastest")
        if every_rank:
            lines += [f"  rank {rank:<7}{rate:.1f}" for rank, rate in enumerate(rates)]
    found.say(f"GEMM of each rank, all ranks at once, n = {n:,}", lines)


def processor_rates(comm: MPI.Comm) -> dict[str, float]:
    """The rates by name, of the slowest rank while all ranks work, the same on every rank. Collective.

    ``potrf_gflops_*`` Cholesky of a rank alone, ``potrf_grid_gflops_*`` its share of one that all ranks make together;
    ``eigen_gflops`` its share of all eigenpairs that all find together; ``trsm_gflops_*`` triangular solve with 512
    columns; ``count_genotypes_per_s`` and ``decode_genotypes_per_s_*``; ``products_numbers_per_s_*`` numbers of columns
    in their products with four others and with themselves; ``tile_numbers_per_s`` tests of a tile of SNPs and traits;
    ``epilogue_numbers_per_s`` numbers of a product put right in float64 and stored; ``scale_numbers_per_s`` numbers of
    a float64 matrix times a scalar; ``touch_mb_per_s`` of new memory written for the first time;
    ``table_rows_per_s`` of the summary statistics; ``exchange_mb_per_s`` sent by a rank in an Alltoall (0 on one rank).
    """
    from mpi4py import MPI

    rates = {}
    for name, work, run in _probes(comm):
        rates[name] = comm.allreduce(work / _best(run, comm), op=MPI.MIN)
    return rates


def rate_lines(rates: Mapping[str, float]) -> list[str]:
    """The rates of `processor_rates` for people."""

    def pair(stem: str, unit: float, what: str) -> str:
        double, single = (rates[f"{stem}_{precision}"] / unit for precision, _ in PRECISIONS)
        return f"{double:.3g} {what} float64, {single:.3g} float32"

    sent = rates["exchange_mb_per_s"]
    return [
        f"Cholesky      {pair('potrf_gflops', 1, 'GFLOP/s')}, n = {POTRF_SIZE:,}",
        f"  on a grid   {pair('potrf_grid_gflops', 1, 'GFLOP/s')}, each rank's share of one on all ranks",
        f"eigenpairs    {rates['eigen_gflops']:.3g} GFLOP/s, each rank's share of all pairs on all ranks",
        f"solve         {pair('trsm_gflops', 1, 'GFLOP/s')}",
        f"decode        {pair('decode_genotypes_per_s', 1e9, 'billion genotypes/s')}",
        f"count         {rates['count_genotypes_per_s'] / 1e9:.3g} billion genotypes/s",
        f"products      {pair('products_numbers_per_s', 1e6, 'million numbers/s')}",
        f"tests         {rates['tile_numbers_per_s'] / 1e6:,.0f} million of SNPs and traits a second",
        f"epilogue      {rates['epilogue_numbers_per_s'] / 1e6:,.0f} million numbers/s",
        f"scaling       {rates['scale_numbers_per_s'] / 1e6:,.0f} million numbers/s",
        f"new memory    {rates['touch_mb_per_s']:,.0f} MB/s",
        f"tables        {rates['table_rows_per_s']:,.0f} rows/s",
        f"exchange      {sent:,.0f} MB/s sent" if sent else "exchange      nothing to send on one rank",
    ]


def _best(run: Callable[[], object], comm: MPI.Comm) -> float:
    """Seconds of the fastest of a few rounds, each started by all ranks together."""
    best = float("inf")
    for _ in range(ROUNDS):
        comm.Barrier()
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _probes(comm: MPI.Comm) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """Each probe as (name, work in the units of the name, what to time); its memory goes when the next one comes."""
    from mpi4py import MPI

    for suffix, dtype in PRECISIONS:
        yield from _cholesky(f"potrf_gflops_{suffix}", MPI.COMM_SELF, dtype)
        yield from _cholesky(f"potrf_grid_gflops_{suffix}", comm, dtype)
        yield _triangular_solve(f"trsm_gflops_{suffix}", dtype)
        yield from _genotypes(suffix, dtype)
        yield _partial_products(suffix, dtype)
    yield from _eigendecomposition(comm)
    yield _tile()
    yield _epilogue()
    yield _scaling()
    yield "touch_mb_per_s", TOUCHED / 1e6, lambda: np.empty(TOUCHED, dtype=np.uint8).fill(1)
    yield _table()
    yield _exchange(comm)


def _cholesky(name: str, comm: MPI.Comm, dtype: type) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """GFLOP of one rank in p?potrf on the grid of all ranks of ``comm``, as many rows a rank whatever their number."""
    from mpgls.la import scalapack
    from mpgls.la.grid import ProcessGrid
    from mpgls.la.matrix import GridMatrix

    n = int(POTRF_SIZE * comm.size**0.5)
    with ProcessGrid(comm) as grid:
        A_grid = GridMatrix.square(grid, n, grid_block(n, grid.shape), dtype)

        def factorise() -> None:
            A_grid.local[...] = 1e-3
            A_grid.local[A_grid.diagonal_positions] = 4.0
            scalapack.potrf(A_grid)

        yield name, n**3 / 3e9 / comm.size, factorise


def _eigendecomposition(comm: MPI.Comm) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """GFLOP of one rank in all eigenpairs and their check, by all ranks, counted as 9 n^3 in all."""
    from mpgls.la.eigen import eigh
    from mpgls.la.grid import ProcessGrid
    from mpgls.la.matrix import GridMatrix

    n = int(EIGEN_SIZE * comm.size**0.5)
    with ProcessGrid(comm) as grid:
        A_grid = GridMatrix.square(grid, n, grid_block(n, grid.shape))

        def decompose() -> None:
            rows, cols = A_grid.row_indices[:, None], A_grid.col_indices[None, :]
            A_grid.local[...] = 0.9 ** np.abs(rows - cols)  # as of samples whose kinship falls with their distance
            eigh(A_grid, "scalapack", "")

        yield "eigen_gflops", 9.0 * n**3 / 1e9 / comm.size, decompose


def _tile() -> tuple[str, float, Callable[[], object]]:
    """Numbers of a finished tile in float64: best SNPs, histograms and hits."""
    from mpgls.model.epilogue import Epilogue
    from mpgls.model.tiles import Tile

    rng = np.random.default_rng(3)
    R = rng.standard_normal((TILE_TRAITS, TILE_SNPS)) / SAMPLES**0.5
    tile = Tile(R, np.ones_like(R), np.zeros(TILE_SNPS, dtype=np.uint8))
    kept, snps = Epilogue(np.ones(TILE_TRAITS), SAMPLES, 4), np.arange(TILE_SNPS)
    return "tile_numbers_per_s", R.size, lambda: kept.add(tile, snps)


def _triangular_solve(name: str, dtype: type) -> tuple[str, float, Callable[[], object]]:
    from scipy.linalg import blas

    L: np.ndarray = np.asfortranarray(np.eye(ROWS, dtype=dtype))
    X: np.ndarray = np.ones((ROWS, COLUMNS), dtype=dtype, order="F")
    trsm = blas.dtrsm if dtype == np.float64 else blas.strsm
    return name, ROWS**2 * COLUMNS / 1e9, lambda: trsm(1.0, L, X, lower=1, overwrite_b=1)


def _genotypes(suffix: str, dtype: type) -> Iterator[tuple[str, float, Callable[[], object]]]:
    """Counting packed genotypes (in float64 only: it is the same work), and decoding counted ones."""
    from mpgls.study.genotypes import Decoder, bytes_per_snp

    packed = np.random.default_rng(1).integers(0, 256, (SNPS, bytes_per_snp(SAMPLES)), dtype=np.uint8)
    decoder = Decoder(SAMPLES, [np.arange(SAMPLES)], dtype)
    out: np.ndarray = np.empty((SAMPLES, SNPS), dtype=dtype, order="F")
    stats = decoder.stats(packed)
    if suffix == "double":
        yield "count_genotypes_per_s", SAMPLES * SNPS, lambda: decoder.stats(packed)
    yield f"decode_genotypes_per_s_{suffix}", SAMPLES * SNPS, lambda: decoder.decode(packed, [out], stats)


def _partial_products(suffix: str, dtype: type) -> tuple[str, float, Callable[[], object]]:
    from mpgls.model.products import partial_products

    F: np.ndarray = np.ones((SAMPLES, 4), dtype=dtype, order="F")
    X: np.ndarray = np.ones((SAMPLES, COLUMNS), dtype=dtype, order="F")
    return f"products_numbers_per_s_{suffix}", SAMPLES * COLUMNS, lambda: partial_products(F, X)


def _epilogue() -> tuple[str, float, Callable[[], object]]:
    """From a float32 product to numbers put right in float64, less an outer product and divided by a column, stored."""
    product, stored = (np.ones((ROWS, COLUMNS), dtype=np.float32, order="F") for _ in range(2))
    column, row = np.ones(ROWS), np.ones(COLUMNS)

    def put_right() -> None:
        exact = product - np.multiply.outer(column, row)
        exact /= column[:, None]
        stored[...] = exact

    return "epilogue_numbers_per_s", ROWS * COLUMNS, put_right


def _scaling() -> tuple[str, float, Callable[[], object]]:
    """A float64 matrix beyond the caches, times a number."""
    A = np.ones((4 * ROWS, ROWS))
    scaled = np.empty_like(A)
    return "scale_numbers_per_s", A.size, lambda: np.multiply(A, 0.5, out=scaled)


def _table() -> tuple[str, float, Callable[[], object]]:
    """Rows of the summary statistics table, p values and text."""
    from mpgls.report.table import format_rows
    from mpgls.stream.store import RECORD_DTYPE
    from mpgls.study.plink import Variants

    names = [["1"] * SAMPLES, [f"snp{k}" for k in range(SAMPLES)], ["A"] * SAMPLES, ["C"] * SAMPLES]
    variants = Variants(chrom=names[0], id=names[1], pos=np.arange(SAMPLES), a1=names[2], a2=names[3])
    records = np.zeros(SAMPLES, dtype=RECORD_DTYPE)
    records["beta"], records["se"] = np.random.default_rng(2).standard_normal(SAMPLES), 1.0
    records["eaf"], records["n"] = 0.3, SAMPLES
    return "table_rows_per_s", SAMPLES, lambda: format_rows(variants, records, 1e4, "t")


def _exchange(comm: MPI.Comm) -> tuple[str, float, Callable[[], object]]:
    """10^6 bytes that a rank sends to the others, all to all."""
    part = EXCHANGE_BYTES // comm.size
    out, into = np.zeros(part * comm.size, dtype=np.uint8), np.empty(part * comm.size, dtype=np.uint8)
    return "exchange_mb_per_s", part * (comm.size - 1) / 1e6, lambda: comm.Alltoall(out, into)
