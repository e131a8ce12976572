"""PREFIX.progress.jsonl of every command that works for long, on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ranks import few_ranks
from small_study import on_root, read_plink, write_kinship

import mpgls
from mpgls.errors import UsageError
from mpgls.run import progress_file
from mpgls.run.progress_file import ProgressFile

pytestmark = few_ranks

N, M = 61, 53


@pytest.fixture(scope="module")
def prefix(module_comm, module_folder):
    """A small study; simulating it says how far it is, too."""
    out = str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, out=out, seed=1, progress=True, comm=module_comm)
    on_root(module_comm, lambda: write_kinship(module_folder / "K.h5", read_plink(out).ids, np.eye(N) + 0.1))
    return out


def lines(out):
    return [json.loads(line) for line in Path(f"{out}.progress.jsonl").read_text().splitlines()]


def options_of(prefix, command):
    files = {"bfile": prefix, "threads": 1, "progress": True}
    few = {"pheno": f"{prefix}.pheno.tsv", "pheno_name": "trait1", "no_plots": True}
    grm = {"grm": str(Path(prefix).with_name("K.h5"))}
    return (
        files
        | {
            "kinship": {},
            "single_trait": grm | few,
            "multi_trait": grm | few,
            "low_rank": {"similarity_every": 2, "no_loco": True, **few},
            "vgwas": {"permutations": 2, **few},
            "ridge": {"permutations": 2, "outer_folds": 2, "inner_folds": 2, **few},
        }[command]
    )


PHASES = {
    "kinship": ("kinship", M, "SNPs"),
    "single_trait": ("scan of trait1", None, "SNPs"),
    "multi_trait": ("group 1, traits 1 to 1", None, "SNPs"),
    "low_rank": ("stage 1, G'G", None, "rows of strips"),
    "vgwas": ("vgwas", None, "SNP permutations"),
    "ridge": ("permutations", None, "fits"),
}


@pytest.mark.parametrize("command", PHASES)
def test_each_line_says_how_far_the_run_is(comm, prefix, command):
    out = Path(prefix).with_name(command)
    getattr(mpgls, command)(out=out, comm=comm, **options_of(prefix, command))
    comm.Barrier()
    if comm.rank:
        return
    first, *between, last = lines(out)
    assert (first["phase"], first["command"], first["ranks"]) == ("start", command.replace("_", "-"), comm.size)
    assert last["phase"] == "done"
    phase, total, unit = PHASES[command]
    ended = [line for line in between if line["phase"] == phase and line["done"] == line["total"]]
    assert ended and ended[-1]["unit"] == unit and ended[-1]["seconds_left"] == 0
    assert total is None or ended[-1]["total"] == total
    seconds = [line["seconds"] for line in lines(out)]
    assert seconds == sorted(seconds)
    assert f"{out}.progress.jsonl" in json.loads(Path(f"{out}.json").read_text())["other_files"]


def test_simulate_says_it_too(comm, prefix):
    assert list(dict.fromkeys(line["phase"] for line in lines(prefix))) == ["start", "genotypes", "done"]
    assert lines(prefix)[-2]["done"] == lines(prefix)[-2]["total"] == M


def test_a_file_of_others_is_left_alone(comm, prefix):
    other = Path(prefix).with_name("other.progress.jsonl")
    on_root(comm, lambda: other.write_text("mine\n"))
    with pytest.raises(UsageError, match=r"other.progress.jsonl was not made by mpgls kinship and is not replaced"):
        mpgls.kinship(out=other.with_name("other"), comm=comm, **options_of(prefix, "kinship"))
    comm.Barrier()
    assert other.read_text() == "mine\n"
    # without --progress nobody needs the name
    mpgls.kinship(out=other.with_name("other"), comm=comm, **options_of(prefix, "kinship") | {"progress": False})


def test_a_resumed_run_adds_to_the_file_and_a_fresh_one_begins_it(comm, prefix):
    out = Path(prefix).with_name("again")
    for resume, starts in ((False, 1), (True, 2), (False, 1)):
        mpgls.kinship(out=out, comm=comm, resume=resume, **options_of(prefix, "kinship"))
        comm.Barrier()
        if comm.rank == 0:
            assert [line["phase"] for line in lines(out)].count("start") == starts
        comm.Barrier()


def test_lines_come_at_intervals_and_at_the_end_of_a_phase(comm, shared_tmp_path, monkeypatch):
    path, now = shared_tmp_path / f"rank{comm.rank}", [0.0]
    monkeypatch.setattr(progress_file.time, "perf_counter", lambda: now[0])
    file = ProgressFile(path, append=False)
    for second, done in ((0.1, 1), (0.5, 2), (1.0, 3), (1.05, 4), (1.25, 8)):
        now[0] = second
        file.at("scan", done, 8, "SNPs", 8.0 - done)
    file.at("next", 1, 9, "SNPs", 0.5)
    file.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["phase"], line["done"]) for line in found] == [("scan", 1), ("scan", 8), ("next", 1)]
    assert found[0] == {
        "phase": "scan", "done": 1, "total": 8, "unit": "SNPs", "seconds_left": 7.0, "seconds": 0.1
    }  # fmt: skip
