"""What --device gpu does on this machine's card: rates of its products in memory, their errors, and whole commands.

Data are made up: a factor of ones on the diagonal and small numbers below, random packed genotypes. Each kind of
product is checked on a sample, against float64 or integers on the host. Without a card, and with --quick, NumPy takes
its place on a tiny problem: results are checked, and nothing is timed.

Further parts lie beside this file: `gpu_multi_trait.py`, `gpu_vgwas.py`, `gpu_cholesky.py`. Each has a function

    measure(card: Card, quick: bool) -> dict[str, float | str]

that makes its own data on ``card``, checks a sample of its results against float64 on the host (raising ValueError
where they differ too much), and gives figures by name, such as ``vgwas_associations_per_s``: numbers, or a sentence why
there is none. ``quick``: a tiny problem on NumPy, of which every rate is 0.0. A part takes at most 30 seconds. One that
fails puts its message under its name, and the others go on.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import finish, guarded, make_parser, mpirun, parse_sizes, print_table, simulated

from mpgls.device import cuda
from mpgls.device.card import PRODUCTS, Card, NumpyCard
from mpgls.device.cross import centred_product, counted
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import row_panels
from mpgls.device.outer import EXACT, OuterSums
from mpgls.device.parts import PRECISIONS
from mpgls.device.products import COPIES
from mpgls.errors import MpglsError

FULL = {"samples": 20_480, "snps": 200_000, "similarity": 8_192}
QUICK = {"samples": 203, "snps": 150, "similarity": 64}
PARTS = ("gpu_multi_trait", "gpu_vgwas", "gpu_cholesky")
WIDTH, REPEATS, SAMPLED = 4096, 3, 32
TOLERATED = {"double": 1e-12, "mixed": 1e-6, "exact": 1e-12}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--no-commands", action="store_true", help="leave out the whole commands")
    options = parse_sizes(parser, FULL, QUICK)
    card = None if options.quick else find_card()
    commands = {} if card is None or options.no_commands else whole_commands(options)
    timed, on = card is not None, card or NumpyCard()
    if not timed:
        options.samples, options.similarity = QUICK["samples"], QUICK["similarity"]
    n, width = options.samples, WIDTH if timed else 48
    packed = random_genotypes(1, width, n)
    results: dict[str, Any] = {"card": on.name, "timed": timed, "n": n, "errors": {}}
    for measure in (scans, similarity_products, kinship_products):
        measure(on, options, packed, timed, results)
    results |= further_parts(on, options.quick or not timed)
    wrong = {name: error for name, error in results["errors"].items() if error > TOLERATED.get(name, 0.0)}
    rows = [[name, value] for name, value in results.items() if name != "errors"]
    print_table(["", "figure"], rows + [[f"error, {name}", error] for name, error in results["errors"].items()])
    finish(results | commands | {"all_right": not wrong}, options.json)


def further_parts(card: Card, quick: bool) -> dict[str, float | str]:
    """Figures of the scripts beside this one."""
    found: dict[str, float | str] = {}
    for name in PARTS:
        if (Path(__file__).parent / f"{name}.py").exists():
            try:
                found |= importlib.import_module(name).measure(card, quick)
            except Exception as error:  # the others are measured all the same
                found[name] = f"{type(error).__name__}: {error}"
    return found


def random_genotypes(seed: int, snps: int, n: int) -> np.ndarray:
    """Packed genotypes (snps, bytes) of n samples, none of them missing."""
    every = np.arange(256)
    known = every[((every[:, None] >> np.array([0, 2, 4, 6])) & 3 != 1).all(axis=1)].astype(np.uint8)
    return known[np.random.default_rng(seed).integers(0, known.size, (snps, -(-n // 4)))]


def find_card() -> Card | None:
    """The first GPU, or None, which is said."""
    try:
        return cuda.open_card(0, 1, None)
    except MpglsError as error:
        print(f"no card: {error}\nNumPy takes its place on a tiny problem, and nothing is timed.")
        return None


def seconds_of(card: Card, timed: bool, action: Callable[[], object]) -> float | None:
    """Seconds of an action, the best of several after one that does not count; None where nothing is timed."""
    action()
    if not timed:
        return None
    found = []
    for _ in range(REPEATS):
        card.settle()
        start = time.perf_counter()
        action()
        card.settle()
        found.append(time.perf_counter() - start)
    return min(found)


def rate(amount: float, seconds: float | None) -> float | None:
    """``amount`` a second."""
    return None if seconds is None else amount / seconds


# -- the scan -----------------------------------------------------------------------------------------------------


class MadeUpFactor:
    """L^-1 (n, n) with ones on its diagonal and N(0, 1/(16 n)) below, by blocks."""

    triangle = True

    def __init__(self, n: int) -> None:
        self.n = n

    def row_blocks(self, wanted: Sequence[Sequence[Any]]) -> list[np.ndarray]:
        """The blocks of the first rank."""
        return [self.rows(block.rows, block.cols) for block in wanted[0]]

    def rows(self, rows: range, cols: range) -> np.ndarray:
        """Some rows of it."""
        W = np.random.default_rng(rows.start).standard_normal((len(rows), len(cols))) * 0.25 / np.sqrt(self.n)
        W = np.tril(W, rows.start - 1)
        W[np.arange(len(rows)), np.arange(rows.start, rows.stop)] = 1.0
        return W


def scans(card: Card, options: Any, packed: np.ndarray, timed: bool, results: dict[str, Any]) -> None:
    """SNPs a second of the stream through L^-1, from memory, and the error of x'M^-1x, in each precision."""
    from mpi4py import MPI

    from mpgls.engine.device_blocks import OnCard
    from mpgls.engine.device_scan import DeviceSnps
    from mpgls.engine.snp_scan import Block, decoded
    from mpgls.la.teams import Team
    from mpgls.run.world import World
    from mpgls.study.snp_columns import ONE_COLUMN

    n, world = options.samples, World(MPI.COMM_SELF)
    bed = SimpleNamespace(n=n, snp_bytes=packed.shape[1], males=None, dosages=False)
    L, rows = MadeUpFactor(n), np.arange(n)
    F = np.random.default_rng(2).standard_normal((n, 4))
    sampled = packed[:SAMPLED]
    X = decoded(ONE_COLUMN, sampled, rows, bed)

    right = sum(np.square(L.rows(*block) @ X[: block.cols.stop]).sum(axis=0) for block in row_panels(n, 1, True)[0])
    for name, precision in PRECISIONS.items():
        at = OnCard(card, precision, len(packed), card.limit)
        snps = DeviceSnps(L, F, rows, bed, Team(0, 1, MPI.COMM_SELF), at, world)
        blocks = [Block(k, packed) for k in range(4)]
        seconds = seconds_of(card, timed, lambda snps=snps, blocks=blocks: list(snps.stream(blocks)))
        results[f"scan_snps_per_s_{name}"] = rate(4 * len(packed), seconds)
        _, sums = snps.sums_of(sampled)
        results["errors"][name] = float(np.max(np.abs(sums.S_BR / right - 1)))
        snps.close()
        del snps
        free(card)


# -- products of counts -------------------------------------------------------------------------------------------


def similarity_products(card: Card, options: Any, packed: np.ndarray, timed: bool, results: dict[str, Any]) -> None:
    """G'X of raw counts: operations a second, and its error on a sample, which is none."""
    xp, n, K = card.xp, options.samples, options.similarity
    similar = random_genotypes(3, K, n)
    decoder = DeviceDecoder(card, n, np.arange(n), EXACT)
    none = np.empty(0, dtype=np.int64)
    with card.lane(PRODUCTS):
        G, X = (counted(card, decoder, xp.asarray(one), np.ones(len(one)), none) for one in (similar, packed))
        seconds = seconds_of(card, timed, lambda: centred_product(xp, G, X, n))
        found = card.to_host(centred_product(xp, G, X, n))[:SAMPLED, :SAMPLED]
        a, x = (card.to_host(one.a.parts[0])[:SAMPLED].astype(np.float64) for one in (G, X))
    results["lowrank_ops_per_s"] = rate(2.0 * n * K * len(packed), seconds)
    results["errors"]["lowrank"] = float(np.abs(found - a @ x.T).max())
    free(card)


def kinship_products(card: Card, options: Any, packed: np.ndarray, timed: bool, results: dict[str, Any]) -> None:
    """S += A A' of the whole numbers of a block: operations a second, and the error on a sample, which is none."""
    xp, n = card.xp, options.samples
    decoder, everyone = DeviceDecoder(card, n, np.arange(n), EXACT), np.arange(n)
    with card.lane(PRODUCTS):
        c = xp.ones(len(packed))
        A = xp.ascontiguousarray(decoder.genotypes(xp.asarray(packed), c).parts[0][:, :n].T)
        sums = OuterSums(card, everyone, everyone)
        seconds = seconds_of(card, timed, lambda: sums.add_whole(A, A, COPIES))
        sums.S[...] = 0.0
        sums.add_whole(A, A, COPIES)
        found, a = card.to_host(sums.S[-SAMPLED:, :SAMPLED]), card.to_host(A).astype(np.float64)
    results["kinship_ops_per_s"] = rate(sums.flop * len(packed), seconds)
    results["errors"]["kinship"] = float(np.abs(found - a[-SAMPLED:] @ a[:SAMPLED].T).max())
    free(card)


def free(card: Card) -> None:
    """Give memory that nobody uses back to the card."""
    if card.xp is not np:
        card.xp.get_default_memory_pool().free_all_blocks()


# -- whole commands -----------------------------------------------------------------------------------------------


def whole_commands(options: Any) -> dict[str, float]:
    """Seconds of kinship and of a scan with a given h2, from files, on the card and on all cores without it."""
    prefix = simulated(options.scratch, options.samples, options.snps)
    cores = len(os.sched_getaffinity(0))
    return dict(_commands(prefix, options.scratch, cores))


def _commands(prefix: Path, scratch: Path, cores: int) -> Iterator[tuple[str, float]]:
    for name, ranks, words in (("gpu", 1, ("--device", "gpu")), (f"{cores}_cores", cores, ())):
        K, out = scratch / f"gpu-K-{name}", scratch / f"gpu-scan-{name}"
        made = mpirun(ranks, "-m", "mpgls", "kinship", "--bfile", prefix, "--out", K, *words)
        yield f"kinship_seconds_{name}", made.seconds
        scan = ("single-trait", "--bfile", prefix, "--grm", f"{K}.h5", "--h2", "0.5", "--no-plots", "--out", out)
        pheno = ("--pheno", f"{prefix}.pheno.tsv", "--precision", "mixed")
        yield f"scan_seconds_{name}", mpirun(ranks, "-m", "mpgls", *scan, *pheno, *words).seconds


if __name__ == "__main__":
    guarded(main)
