"""Time per SNP x trait and memory while SNPs and traits grow beyond what --memory holds.

[Elem] Figure 8. n is fixed; first the SNPs grow, then the traits. Every size is a whole run of multi-trait on an
eigendecomposition made before, and needs several passes over rotated SNPs in scratch files. The time of a pair is that
of the phases of the scan, reading, decoding and rotating the SNPs and scratch files included; a SNP is rotated once at
a cost of n/t of its products, which the last column takes away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from common import finish, guarded, make_parser, print_table, simulated
from figures import ACCENT, COLOURS, IMAGES, add_picture, chart, chosen_picture, heading
from multi_data import RANKS, Run, eigenbasis, mpgls, traits

GIB = 2**30
SAMPLES, QUICK_SAMPLES = 1500, 500
SIZES = ((6000, 6000), (12000, 6000), (24000, 6000), (6000, 12000), (6000, 24000))
QUICK_SIZES = ((4000, 4000), (8000, 4000), (4000, 8000))
"""SNPs and traits."""
MEMORY, QUICK_MEMORY = 0.25, 0.2
ROTATION = ("read (waiting)", "decode", "rotate SNPs")
PICTURE = IMAGES / "tiling.png"


class Point(NamedTuple):
    """One size, and what its run took: nanoseconds a pair of the scan, and of it without rotating the SNPs."""

    snps: int
    traits: int
    passes: int
    pair: float
    tile_pair: float
    run: Run

    @property
    def needed(self) -> float:
        """Bytes of the rotated traits and SNPs in double precision, over the ranks as far as they are dealt."""
        n = self.run.manifest["plan"]["n"]
        return 8.0 * n * (self.traits + self.snps / RANKS)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--memory", type=float, metavar="GIB", help=f"--memory of a rank ({MEMORY})")
    parser.add_argument("--repeats", type=int, metavar="K", help="runs of each size (3; 1 with --quick)")
    add_picture(parser, PICTURE)
    options = parser.parse_args()
    n, sizes = (QUICK_SAMPLES, QUICK_SIZES) if options.quick else (SAMPLES, SIZES)
    memory = options.memory or (QUICK_MEMORY if options.quick else MEMORY)
    most_snps, most_traits = (max(size[k] for size in sizes) for k in (0, 1))
    prefix = simulated(options.scratch, n, most_snps)
    files = ("--bfile", prefix, "--eigen", eigenbasis(prefix), "--pheno", traits(prefix, most_traits))
    found: dict[tuple[int, int], list[Point]] = {size: [] for size in sizes}
    for repeat in range(options.repeats or (1 if options.quick else 3)):
        for size in sizes[:: 1 if repeat % 2 == 0 else -1]:
            found[size].append(measure(options.scratch, prefix, files, size, memory))
    points = [sorted(several, key=lambda point: point.pair)[len(several) // 2] for several in found.values()]
    pair, tile_pair = ([point[k] for point in points] for k in (3, 4))
    results: dict[str, Any] = {
        "flatness": spread(pair), "flatness_tiles": spread(tile_pair),
        "peak_rss_over_memory": max(p.run.peak_rss for several in found.values() for p in several) / (memory * GIB),
        "snps": [p.snps for p in points], "traits": [p.traits for p in points], "passes": [p.passes for p in points],
        "nanoseconds_a_pair": pair, "nanoseconds_a_pair_tiles": tile_pair,
        "peak_rss": [p.run.peak_rss for p in points], "memory_gib": memory, "n": n, "ranks": RANKS,
        "quick": options.quick,
    }  # fmt: skip
    report(points, results)
    if (picture := chosen_picture(options, PICTURE)) is not None:
        draw(points, results, picture)
    finish(results, options.json)


def measure(scratch: Path, prefix: Path, files: tuple[Any, ...], size: tuple[int, int], memory: float) -> Point:
    """One run of the first SNPs and traits."""
    m, t = size
    chosen = scratch / f"{prefix.name}-first{m}.txt"
    with open(f"{prefix}.bim", encoding="utf-8") as bim, open(chosen, "w", encoding="utf-8") as out:
        out.writelines(f"{line.split()[1]}\n" for _, line in zip(range(m), bim, strict=False))
    run = mpgls(
        scratch / "tiling", "multi-trait", *files, "--covar", f"{prefix}.covar.tsv", "--extract", chosen,
        "--pheno-name", f"1-{t}", "--memory", str(memory), "--no-plots",
    )  # fmt: skip
    passes = -(-t // run.manifest["plan"]["resident"])
    seconds, rotation = run.phases(), run.phases(ROTATION)
    return Point(m, t, passes, 1e9 * seconds / (m * t), 1e9 * (seconds - rotation) / (m * t), run)


def spread(values: list[float]) -> float:
    """How far the largest and the smallest lie from their middle, relative to it: 0.15 is flat within 15%."""
    return (max(values) - min(values)) / (max(values) + min(values))


def report(points: list[Point], results: dict[str, Any]) -> None:
    """The tables for a person."""
    print(f"n = {results['n']:,}, --memory {results['memory_gib']} GiB a rank, {RANKS} ranks x 1 thread, double")
    rows = [
        [f"{p.snps:,} x {p.traits:,}", round(p.needed / 2**20), p.passes, round(p.run.peak_rss / 2**20),
         p.run.phases(), p.pair, p.run.phases(["scratch"]), p.tile_pair]
        for p in points
    ]  # fmt: skip
    header = ["SNPs x traits", "rotated MiB", "passes", "peak RSS MiB", "scan s", "ns a pair", "scratch s", "ns, tiles"]
    print_table(header, rows, " ")
    aims = [
        ("ns a pair, +- around the middle", results["flatness"], "0.15 or less"),
        ("the same without rotating SNPs", results["flatness_tiles"], "0.15 or less"),
        ("largest peak RSS / --memory", results["peak_rss_over_memory"], "1 or less"),
    ]
    print_table(["", "measured", "aim"], aims, " ")


def draw(points: list[Point], results: dict[str, Any], path: Path) -> None:
    """Figure 8: nanoseconds a pair against pairs, one line while SNPs grow and one while traits grow."""
    first = points[0]
    with chart(path) as axes:
        middle = 0.5 * (max(results["nanoseconds_a_pair"]) + min(results["nanoseconds_a_pair"]))
        axes.axhspan(0.85 * middle, 1.15 * middle, color="#dfe5ea", linewidth=0, label="within 15%")
        for label, colour, kept in (
            (f"SNPs grow, {first.traits:,} traits", COLOURS[0], [p for p in points if p.traits == first.traits]),
            (f"traits grow, {first.snps:,} SNPs", ACCENT, [p for p in points if p.snps == first.snps]),
        ):
            x, y = [p.snps * p.traits / 1e6 for p in kept], [p.pair for p in kept]
            axes.plot(x, y, "o-", color=colour, markersize=5, label=label)
        axes.set_xscale("log")
        ticks = sorted({p.snps * p.traits / 1e6 for p in points})
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 1.5 * middle)
        axes.set_xlabel("SNPs x traits, millions")
        axes.set_ylabel("nanoseconds per SNP x trait")
        axes.legend(loc="lower left", frameon=False)
        share = f"{results['peak_rss_over_memory']:.0%}"
        heading(
            axes,
            "Time per SNP x trait beyond memory",
            f"n = {results['n']:,}, {results['memory_gib']} GiB a rank, {RANKS} ranks; peak RSS {share} of that",
        )


if __name__ == "__main__":
    guarded(main)
