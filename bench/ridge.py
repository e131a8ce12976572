"""Nested cross-validation of many targets: a permutation on one core beside its GEMM rate, himalaya and scikit-learn.

n = 1,500, t = 1,000, 5 penalties, 10 x 5 folds, mixed precision: 300,000 ridge problems a permutation. The kernel comes
from `mpgls kinship`'s simulated genotypes; GEMM rates and permutations are measured in turn, and medians are reported.
The peers do the same folds and penalties on the same core: himalaya's KernelRidgeCV for each outer fold, scikit-learn's
KernelRidge for each fold and penalty (all targets at once, which is less than choosing a penalty for each).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from common import THREAD_VARIABLES, finish, guarded, make_parser, print_table, simulated

FULL, QUICK = (1500, 20000, 1000), (1500, 2000, 1000)
"""Samples, SNPs and targets: the work is that of the samples and the targets, and small ones have another share."""
REPEATS, QUICK_REPEATS = 11, 4
ALPHAS, OUTER, INNER = (0.1, 1.0, 10.0, 100.0, 1000.0), 10, 5
PROTOTYPE = {"core_hours": 4.6, "gflop": 166.0, "seconds": 1.66}
"""The direct smoothers of a prototype: hours for 10,000 permutations, operations and seconds of one."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="R",
        help=f"permutations that are timed ({REPEATS}; {QUICK_REPEATS} with --quick)",
    )
    parser.add_argument("--no-peers", action="store_true", help="without himalaya and scikit-learn")
    options = parser.parse_args()
    one_thread()
    n, m, t = QUICK if options.quick else FULL
    prefix = simulated(options.scratch, n, m)
    repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    results = measure(str(prefix), n, t, repeats, not options.no_peers)
    finish(results | {"n": n, "m": m, "t": t, "quick": options.quick}, options.json)


def one_thread() -> None:
    """Start again with one BLAS thread, unless that is so already: libraries read it when they are loaded."""
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREAD_VARIABLES, "1"))


def measure(prefix: str, n: int, t: int, repeats: int, peers: bool) -> dict[str, Any]:
    """Everything on this core; prints the tables and returns the keys of the JSON."""
    import numpy as np

    from mpgls.model.folds import nested_folds
    from mpgls.model.kernel_ridge import LeaveOut

    K, folds = kernel(prefix, n), nested_folds(n, OUTER, INNER, seed=1)
    Y = np.asfortranarray(np.random.default_rng(2).standard_normal((t, n)).astype(np.float32))
    start = time.process_time()
    operators = leave_out_operators(K, folds)
    build = time.process_time() - start
    gflop = 2e-9 * t * len(ALPHAS) * LeaveOut.size(folds)
    seconds, rates = in_turns(Y, folds, operators, gflop, repeats)
    second, rate = float(np.median(seconds)), float(np.median(rates))
    fits = t * len(ALPHAS) * OUTER * (INNER + 1)
    share = float(np.median(gflop / seconds / rates))
    theirs = {}
    if peers:
        Y_n = np.ascontiguousarray(Y.T)
        theirs = {"himalaya": himalaya(K, Y_n, folds), "scikit-learn": scikit_learn(K, Y_n, folds)}
    print(
        f"n = {n:,}, t = {t:,}, {len(ALPHAS)} penalties, {OUTER} x {INNER} folds: {fits:,} fits a permutation, one core"
    )
    rows = [["mpgls", second, gflop / second, 1.0]]
    rows += [[name, other, None, other / second] for name, other in theirs.items()]
    print_table(["one permutation", "seconds", "GFLOP/s", "times mpgls"], rows)
    print(f"GEMM {rate:.0f} GFLOP/s single: share {share:.2f}; operators built once in {build:.1f} s")
    return {
        "fits_per_s_per_core": fits / second,
        "share_of_gemm": share,
        "predicted_core_hours_10000": second * 10_000 / 3600,
        "predicted_core_hours_10000_at_100_gflops": gflop / share / 100 * 10_000 / 3600,
        "seconds_per_permutation": second,
        "gflop_per_permutation": gflop,
        "gemm_gflops_single": rate,
        "build_seconds": build,
        "prototype_core_hours_10000": PROTOTYPE["core_hours"],
        **{f"{name.replace('scikit-learn', 'sklearn')}_ratio": other / second for name, other in theirs.items()},
    }


def leave_out_operators(K: Any, folds: Any) -> list[Any]:
    """The operators of all folds in float32, for each penalty; the intercept is not penalised."""
    import numpy as np

    from mpgls.model.kernel_ridge import LeaveOut, residual_operator

    operators = []
    for alpha in ALPHAS:
        D = K.copy(order="F")
        residual_operator(D, np.ones((len(K), 1)), alpha)
        one = LeaveOut(folds, np.empty(LeaveOut.size(folds), dtype=np.float32))
        for o in range(OUTER):
            one.build(D, o)
        operators.append(one)
    return operators


def in_turns(Y: Any, folds: Any, operators: list[Any], gflop: float, repeats: int) -> tuple[Any, Any]:
    """Seconds of each permutation of all targets Y (t, n), and GFLOP/s of as much GEMM right before it."""
    import numpy as np

    from mpgls.engine.permutation_tiles import Permutations, TileScanner, tiles_of
    from mpgls.model.nested_scores import Scatter

    t, n = Y.shape
    scanner = TileScanner(Y, Scatter(folds, np.ones((n, 1)), np.float32), Permutations(seed=1), len(ALPHAS))

    def permutation(index: int) -> None:
        for tile in tiles_of(t, index, index + 1, False):
            scanner.mean_r2(tile, scanner.score(tile, operators))

    permutation(1)
    seconds, rates = [], []
    for index in range(2, repeats + 2):
        rates.append(gemm_rate(np.float32, gflop))
        seconds.append(timed(lambda index=index: permutation(index)))
    return np.array(seconds), np.array(rates)


def kernel(prefix: str, n: int) -> Any:
    """K of standardised SNPs, float64 (n, n), in blocks."""
    import numpy as np

    from mpgls.study.genotypes import Decoder
    from mpgls.study.plink import open_fileset

    fileset = open_fileset(prefix)
    packed = np.fromfile(f"{prefix}.bed", dtype=np.uint8)[3:].reshape(fileset.bed.m, -1)
    decoder, K, used = Decoder(n, [np.arange(n)], np.float64), np.zeros((n, n)), 0
    for start in range(0, len(packed), 1024):
        block = packed[start : start + 1024]
        X = np.empty((n, len(block)), order="F")
        stats = decoder.decode(block, [X])
        kept = ~stats.monomorphic
        X = X[:, kept] / np.sqrt(stats.variance[kept])
        K += X @ X.T
        used += X.shape[1]
    return K / used


def himalaya(K: Any, Y: Any, folds: Any) -> float:
    """Seconds of KernelRidgeCV for the first outer fold, times the outer folds."""
    import numpy as np
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.scoring import r2_score

    test, training = folds.outer[0].test, folds.training(0)
    inner = [(np.searchsorted(training, folds.training(OUTER + i)), np.searchsorted(training, held))
             for i, held in enumerate(folds.outer[0].inner)]  # fmt: skip
    K32 = K.astype(np.float32)
    model = KernelRidgeCV(
        alphas=np.array(ALPHAS, dtype=np.float32), kernel="precomputed", cv=inner,
        solver_params={"score_func": r2_score, "local_alpha": True},
    )  # fmt: skip

    def fold() -> None:
        model.fit(K32[np.ix_(training, training)], Y[training])
        model.predict(K32[np.ix_(test, training)])

    return OUTER * timed(fold)


def scikit_learn(K: Any, Y: Any, folds: Any) -> float:
    """Seconds of KernelRidge for one inner and one outer training set, times folds and penalties."""
    import numpy as np
    from sklearn.kernel_ridge import KernelRidge

    K32 = K.astype(np.float32)

    def fit(k: int) -> None:
        test, training = folds.tests[k], folds.training(k)
        model = KernelRidge(alpha=1.0, kernel="precomputed").fit(K32[np.ix_(training, training)], Y[training])
        model.predict(K32[np.ix_(test, training)])

    return OUTER * (timed(lambda: fit(0)) + INNER * len(ALPHAS) * timed(lambda: fit(OUTER)))


def gemm_rate(dtype: Any, gflop: float, n: int = 1200) -> float:
    """GFLOP/s of products of two n x n matrices, ``gflop`` operations of them or a little more."""
    import numpy as np

    a = np.ones((n, n), dtype=dtype)
    out = np.matmul(a, a)
    times = 1 + int(gflop / (2e-9 * n**3))
    return times * 2e-9 * n**3 / timed(lambda: [np.matmul(a, a, out=out) for _ in range(times)])


def timed(work: Callable[[], object]) -> float:
    """Processor seconds of this one thread, which other programs on the machine lengthen less than the wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    guarded(main)
