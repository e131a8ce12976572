"""The phases of a run's timing table leave no more than 3% of its time without a name, whatever the command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import launch
import numpy as np
import pytest
from resident import must_succeed
from small_images import save, small_mask
from small_study import read_facts

RANKS = 2
SHORTEST = 1.0
"""A run that takes less may have what 3% of this many seconds are: its names cost more than its work."""

MORE = 3
"""Other runs of a command whose time lacks names, as a program that loads its modules anew: where others delay it is
chance, but work without a name lacks it each time."""

STUDY = "--bfile s --pheno s.pheno.tsv"
RUNS = {
    "s": "simulate --samples 601 --snps 900 --chromosomes 3 --traits 5 --missing 0.01",
    "k": "kinship --bfile s --loco --grm-bin",
    "one": f"single-trait {STUDY} --pheno-name trait1 --grm k.h5 --loco --precision mixed",
    "e": "eigen --grm k.h5",
    "many": f"multi-trait {STUDY} --eigen e.h5 --dense",
    "x": "export many.h5 --trait trait1",
    "low": f"low-rank {STUDY} --pheno-name trait1 --similarity-every 5",
    "dense": f"low-rank {STUDY} --pheno-name trait1 --similarity-every 2 --form dense",
    "images": "simulate-images --bfile s --mask mask.nii.gz",
    "voxels": "vgwas-extract --images images.images.tsv --mask mask.nii.gz",
    "v": "vgwas --bfile s --voxels voxels.h5 --permutations 5",
    "r": f"ridge {STUDY} --permutations 5 --weights 2",
    "p": "score --bfile s --weights r.weights.tsv --pheno s.pheno.tsv",
}
"""The arguments of each run by its --out; a later one reads what earlier ones made."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder in which all commands have run."""
    folder: Path = tmp_path_factory.mktemp("runs")
    save(folder / "mask.nii.gz", small_mask().astype(np.uint8))
    for out, arguments in RUNS.items():
        must_succeed(RANKS, f"{arguments} --out {out}", folder)
    return folder


def record(out: str) -> str:
    """The prefix of the manifest: that of an export has a name of its own."""
    return f"{out}.export" if RUNS[out].startswith("export") else out


def has_names(facts: dict[str, Any]) -> bool:
    """Whether the phases leave no more than 3% of the run's time."""
    named = sum(phase["seconds"] for phase in facts["timings"].values())
    short = 0.03 * max(facts["seconds"], SHORTEST)
    return facts["seconds_unnamed"] < short and named > facts["seconds"] - short


@pytest.mark.parametrize("out", RUNS)
def test_the_time_of_a_run_has_names(runs, out):
    facts = read_facts(runs / record(out))
    for _ in range(MORE):
        if not has_names(facts):
            launch.must_succeed(RANKS, f"{RUNS[out]} --out {out}", runs)
            facts = read_facts(runs / record(out))
    assert has_names(facts), facts["timings"]
    assert facts["seconds_unnamed"] >= 0
    # what a rank does at one time has one name: of a rank with nothing else, the phases are no more than the time
    assert sum(phase["seconds_smallest"] for phase in facts["timings"].values()) <= facts["seconds"]
    names = list(facts["timings"])
    assert (names[0], names[-1]) == ("start", "end")


@pytest.mark.parametrize("out", RUNS)
def test_log_and_manifest_agree(runs, out):
    facts, log = read_facts(runs / record(out)), (runs / f"{record(out)}.log").read_text()
    shown = dict(re.findall(r"^ *\d+\.\d\d  (\S.{23}) +(\d+\.\d\d) ", log, re.M))
    expected = {name: f"{phase['seconds']:.2f}" for name, phase in facts["timings"].items()}
    assert {name.strip(): seconds for name, seconds in shown.items()} == expected
    assert re.search(rf"^ *\d+\.\d\d  in no phase +{facts['seconds_unnamed']:.2f}$", log, re.M)
    ended = float(re.findall(r"^ *(\d+\.\d\d)  ", log, re.M)[-1])
    assert facts["seconds"] <= ended + 0.01
