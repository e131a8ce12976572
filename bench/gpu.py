"""What --device gpu does on this machine's card, in under five minutes: rates in memory, errors, whole commands.

Data are made up: a factor of ones on the diagonal and small numbers below, random packed genotypes. Each kind of
product is checked on a sample, against float64 or integers on the host. Each part runs in a process of its own, so one
that fails puts a sentence under its keys, and the others go on; a part that no time is left for says that. With
--quick, NumPy takes the place of a card on a tiny problem: results are checked, and nothing is timed.

Further parts lie beside this file: `gpu_multi_trait.py`, `gpu_vgwas.py`, `gpu_cholesky.py`, `gpu_ridge.py`. Each has
a function

    measure(card: Card, quick: bool) -> dict[str, float | str]

that makes its own data on ``card``, checks a sample of its results against float64 on the host (raising ValueError
where they differ too much), and gives figures by name, such as ``vgwas_associations_per_s``: numbers, or a sentence why
there is none. ``quick``: a tiny problem on NumPy, of which every rate is 0.0. A part takes at most 30 seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common import BenchError, environment, finish, guarded, launcher, make_parser, mpirun, print_table, run
from gpu_parts import card_rates, kinship_products, scan, similarity_products

from mpgls.device import cuda
from mpgls.device.card import Card, NumpyCard

Figures = dict[str, float | str]
SECONDS = 285.0
"""All of it."""
SAMPLES, SNPS = 20_000, 200_000
"""Of the whole commands."""


class Part(NamedTuple):
    """What is measured in a process of its own: the ``keys`` of its figures, and the most ``seconds`` that it takes."""

    keys: tuple[str, ...]
    measure: Callable[[Card, bool], Figures]
    seconds: float


def beside(name: str) -> Callable[[Card, bool], Figures]:
    """`measure` of a script beside this one."""
    return lambda card, quick: importlib.import_module(name).measure(card, quick)


PARTS = {
    "card": Part(("card",), card_rates, 40.0),
    "scan_mixed": Part(("scan_snps_per_s_mixed",), lambda card, quick: scan(card, quick, "mixed"), 45.0),
    "lowrank": Part(("lowrank_ops_per_s",), similarity_products, 40.0),
    "gpu_vgwas": Part(("vgwas_associations_per_s",), beside("gpu_vgwas"), 40.0),
    "gpu_multi_trait": Part(("multi_trait_pairs_per_s",), beside("gpu_multi_trait"), 40.0),
    "kinship": Part(("kinship_ops_per_s",), kinship_products, 30.0),
    "scan_exact": Part(("scan_snps_per_s_exact",), lambda card, quick: scan(card, quick, "exact"), 45.0),
    "gpu_cholesky": Part(("cholesky",), beside("gpu_cholesky"), 40.0),
    "gpu_ridge": Part(("ridge_fits_per_s",), beside("gpu_ridge"), 30.0),
    "scan_double": Part(("scan_snps_per_s_double",), lambda card, quick: scan(card, quick, "double"), 45.0),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), help="only this part, in this process")
    parser.add_argument("--no-commands", action="store_true", help="leave out the whole commands")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"end after so many ({SECONDS:.0f})")
    options = parser.parse_args()
    if options.part is not None:
        finish(PARTS[options.part].measure(cuda.open_card(0, 1, None), False), options.json)
        return
    results: dict[str, Any] = {"timed": not options.quick}
    for figures in quick_parts() if options.quick else all_parts(options):
        results |= figures
        if options.json is not None:  # whatever comes next
            options.json.write_text(json.dumps(results, default=float) + "\n")
    print_table(["", "figure"], [[name, value] for name, value in results.items()])
    failed = [name for name, value in results.items() if isinstance(value, str) and value.startswith("failed: ")]
    finish(results | {"all_right": not failed}, options.json)


def quick_parts() -> Iterator[Figures]:
    """Each part on NumPy, in this process."""
    for name, part in PARTS.items():
        if not name.startswith("gpu_") or Path(__file__).with_name(f"{name}.py").exists():
            yield part.measure(NumpyCard(), True)


def all_parts(options: Any) -> Iterator[Figures]:
    """Each part in a process of its own, then whole commands, while there is time."""
    end = time.monotonic() + options.seconds
    options.scratch.mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        if name.startswith("gpu_") and not Path(__file__).with_name(f"{name}.py").exists():
            continue
        path = options.scratch / f"gpu-{name}.json"
        command = [sys.executable, __file__, "--part", name, "--json", path]
        yield attempt(part.keys, part.seconds, end, lambda limit, c=command, p=path: in_process(c, p, limit))
    if not options.no_commands:
        yield from whole_commands(options.scratch, end)


def attempt(keys: tuple[str, ...], seconds: float, end: float, action: Callable[[float], Figures]) -> Figures:
    """The figures of an action that gets at most ``seconds`` until ``end``, or a sentence under each of its keys."""
    limit = min(seconds, end - time.monotonic())
    if limit < seconds / 4:
        return dict.fromkeys(keys, f"left out: {max(limit, 0.0):.0f} s were left")
    start = time.monotonic()
    try:
        found = action(limit)
    except (BenchError, OSError, ValueError) as error:
        print(str(error)[-1500:])  # on a machine that is held for minutes there is no second look
        found = dict.fromkeys(keys, f"failed: {sentence(str(error))}")
    print(f"{time.monotonic() - start:6.1f} s  " + ", ".join(f"{k} {v}" for k, v in found.items()), flush=True)
    return found


def sentence(output: str) -> str:
    """What a program that failed said: its own last line, not that of mpirun."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -")]
    own = [line for line in lines if line.startswith("mpgls ") or "Error: " in line]
    return (own or lines or ["it said nothing"])[-1]


def in_process(command: list[str | Path], path: Path, limit: float) -> Figures:
    """The figures that a child process wrote to ``path``."""
    path.unlink(missing_ok=True)
    run(command, environment(cores()), limit=limit)
    found: Figures = json.loads(path.read_text())
    return found


def cores() -> int:
    """Of this machine, those that may be used."""
    return len(os.sched_getaffinity(0))


# -- whole commands -----------------------------------------------------------------------------------------------


def whole_commands(scratch: Path, end: float) -> Iterator[Figures]:
    """Seconds of kinship and of a scan with a given h2, from files, on the card and on all cores without it."""
    prefix, everywhere = scratch / f"gpu-{SAMPLES}x{SNPS}", cores()
    made = {"--samples": SAMPLES, "--snps": SNPS, "--out": prefix}
    writers = everywhere if launcher() else 1
    yield attempt(
        ("simulate_seconds",), 60.0, end,
        lambda limit: {"simulate_seconds": mpgls_seconds("simulate", writers, 1, made, limit)},
    )  # fmt: skip
    for old in scratch.glob("gpu-kinship-*.h5"):
        old.unlink()
    of_genotypes = {"--bfile": prefix}
    of_scan = of_genotypes | {"--pheno": f"{prefix}.pheno.tsv", "--precision": "mixed", "--h2": 0.5, "--no-plots": None}
    kinships = {where: scratch / f"gpu-kinship-{where}.h5" for where in ("gpu", f"{everywhere}_cores")}
    for where, kinship in kinships.items():
        on_card = where == "gpu"
        ranks, threads, device = (1, everywhere, {"--device": "gpu"}) if on_card else (everywhere, 1, {})
        # the kinship of the card is there for the scan of the ranks, which comes first: theirs takes longest
        for command in ("kinship", "single-trait") if not kinships["gpu"].exists() else ("single-trait", "kinship"):
            given = (of_genotypes if command == "kinship" else of_scan) | device
            if command == "single-trait":
                given["--grm"] = next((one for one in kinships.values() if one.exists()), kinship)
            given["--out"] = scratch / f"gpu-{command}-{where}"
            figure = f"{command}_seconds_{where}"
            yield attempt(
                (figure,), 120.0, end,
                lambda limit, f=figure, of=(command, ranks, threads, given): {f: mpgls_seconds(*of, limit)},
            )  # fmt: skip


def mpgls_seconds(command: str, ranks: int, threads: int, given: Mapping[str, Any], limit: float) -> float:
    """Wall seconds of an mpgls command; one rank needs no mpirun."""
    words = ["-m", "mpgls", command, *(str(word) for pair in given.items() for word in pair if word is not None)]
    if ranks == 1:
        return run([sys.executable, *words], environment(threads), limit=limit).seconds
    return mpirun(ranks, *words, threads=threads, limit=limit).seconds


if __name__ == "__main__":
    guarded(main)
