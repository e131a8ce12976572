"""The tables and the JSON of peers.py: seconds of each program, agreement of their p values, phases of mpgls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from common import print_table

if TYPE_CHECKING:
    from peers import Measured

PAIRS = (
    ("mpgls double", "FaST-LMM"),
    ("mpgls double", "JanusX"),
    ("mpgls double", "GEMMA"),
    ("mpgls double", "JAMMA"),
    ("GEMMA", "JAMMA"),
    ("mpgls mixed", "mpgls double"),
)
"""Whose -log10 p are compared."""


def report(found: dict[str, Measured], keys: dict[str, str]) -> dict[str, Any]:
    """Print one data set's tables; its part of the JSON. ``keys`` are those of the peers' seconds over ours."""
    base, double = found["mpgls mixed"], found["mpgls double"]
    print_seconds(found, base)
    agreement = {f"{a} and {b}": agree(found[a].log10p, found[b].log10p) for a, b in PAIRS}
    print_agreement(agreement)
    tables = {"mixed": phase_table(base), "double": phase_table(double)}
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    phases = {precision: {name: table.get(name) for name in names} for precision, table in tables.items()}
    rows = [[name, *(table[name] for table in phases.values())] for name in names]
    print_table(["phase of mpgls (median seconds)", *phases], rows, " ")
    whole = {"mixed": whole_over_bound(base, "single"), "double": whole_over_bound(double, "double")}
    for precision, ratio in whole.items():
        print(f"whole run over REML plus solve at the GEMM rate, {precision}: {ratio:.2f} (wanted: below 2)")
    return {
        **{key: over(found[name], base) for name, key in keys.items()},
        **{f"{key}_double": over(found[name], double) for name, key in keys.items()},
        "seconds": {name: one.seconds or None for name, one in found.items()},
        "h2": {name: one.h2 for name, one in found.items()},
        "agreement": agreement,
        "phases": phases,
        "gemm_gflops": {key: [m["gemm_gflops"] for m in one.manifests]
                        for key, one in (("mixed", base), ("double", double))},
        "whole_over_reml_and_solve": whole,
    }  # fmt: skip


def over(one: Measured, ours: Measured) -> float | None:
    """Median seconds over ours; None where one of them has no run."""
    return one.median / ours.median if one.median and ours.median else None


def print_seconds(found: dict[str, Measured], base: Measured) -> None:
    """The times of all programs."""
    rows = [
        [name, one.median, min(one.seconds), len(one.seconds), over(one, base), one.h2]
        for name, one in found.items()
        if one.seconds
    ]
    print_table(["program", "seconds", "fastest", "runs", "over mpgls mixed", "h2"], rows)


def print_agreement(agreement: dict[str, dict[str, Any]]) -> None:
    """How p values agree."""
    header = ["-log10 p", "SNPs", "correlation", "largest difference", "largest relative difference of p"]
    rows = [
        [pair, one["snps"], f"{one['correlation']:.9f}", one["largest_difference"], one["largest_relative_p"]]
        for pair, one in agreement.items()
        if one["snps"]
    ]
    print_table(header, rows, " ")


def phase_table(one: Measured) -> dict[str, float]:
    """Median seconds of each phase of mpgls, and of what its own clock does not see."""
    names = dict.fromkeys(name for manifest in one.manifests for name in manifest["timings"])
    table = {
        name: float(np.median([m["timings"].get(name, {"seconds": 0.0})["seconds"] for m in one.manifests]))
        for name in names
    }
    inside = [manifest["seconds"] for manifest in one.manifests]
    table["in no phase"] = float(np.median([manifest["seconds_unnamed"] for manifest in one.manifests]))
    table["launcher, and end of the processes"] = float(np.median(np.subtract(one.seconds, inside)))
    table["whole run"] = one.median
    return table


def whole_over_bound(one: Measured, solve: str) -> float:
    """Median over runs: wall time over that of REML and solve if both went at the run's GEMM rate."""
    ratios = []
    for seconds, manifest in zip(one.seconds, one.manifests, strict=True):
        gemm, timings = manifest["gemm_gflops"], manifest["timings"]
        rates = {"REML, single": gemm["single"], "REML, double": gemm["double"], "solve": gemm[solve]}
        ratios.append(seconds / sum(timings[name]["gflop"] / rate for name, rate in rates.items() if name in timings))
    return float(np.median(ratios))


def agree(a: dict[str, float], b: dict[str, float]) -> dict[str, Any]:
    """How two programs' -log10 p agree on the SNPs that both have; None where there are none."""
    snps = [snp for snp in a if snp in b]
    if not snps:
        return {"snps": 0, "correlation": None, "largest_difference": None, "largest_relative_p": None}
    x, y = (np.array([one[snp] for snp in snps]) for one in (a, b))
    difference = np.abs(x - y)
    return {
        "snps": len(snps),
        "correlation": float(np.corrcoef(x, y)[0, 1]),
        "largest_difference": float(difference.max()),
        "largest_relative_p": float(np.expm1(math.log(10) * difference.max())),
    }
