"""The life of a run inside: what is opened, known again, kept and told, on any number of ranks, by a toy command."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small_study import on_root

from mpgls.errors import InputError, Stopped, StorageError, UsageError
from mpgls.run import job
from mpgls.run.job import open_job
from mpgls.run.option_groups import RunOptions
from mpgls.run.options import make, option, the_file


@dataclass(frozen=True, kw_only=True)
class Toy(RunOptions):
    """Options of a command that writes one table."""

    command, summary, example = "toy", "writes a table", "mpgls toy --out o"

    table: str | None = option(None, "a table", metavar="FILE", reads=the_file)
    h2: float | None = option(None, "heritability", metavar="X")


@dataclass(frozen=True, kw_only=True)
class Beside(Toy):
    """The same, which keeps its log and manifest beside those of another run."""

    record = ".beside"


@pytest.fixture
def folder(comm, shared_tmp_path, monkeypatch):
    monkeypatch.chdir(shared_tmp_path)
    on_root(comm, lambda: Path("in.txt").write_text("input\n"))
    return shared_tmp_path


def options(kind=Toy, **given):
    return make(kind, {"out": "o", "table": "in.txt", "threads": 1, **given})


def run(comm, chosen, done=None, **opening):
    """The toy command; ``done`` collects that it worked."""
    with open_job(chosen, comm, (".tsv",), **opening) as job:
        if job.is_complete():
            return job.results()
        job.identify()
        if done is not None:
            done.append(job.world.rank)
        job.world.on_root(lambda: job.path(".tsv").write_text("A\tB\n1\tx\n"))
        return job.finish({"rows": np.int64(1), "ranks_seen": comm.size}, tables={"toy": job.path(".tsv")})


def read_log(prefix="o"):
    return Path(f"{prefix}.log").read_text()


# -- a run that ends ----------------------------------------------------------------------------------------------


def test_the_log_has_the_kernels_of_the_start_and_those_that_came_later(comm, folder, monkeypatch):
    loaded = iter(["openblas SkylakeX", "openblas SkylakeX, mkl"])
    monkeypatch.setattr(job, "kernels", lambda: next(loaded))
    run(comm, options())
    if comm.rank == 0:
        first, *_, last = (line for line in read_log().splitlines() if "BLAS kernel" in line)
        assert first.endswith("a rank; BLAS kernel openblas SkylakeX")
        assert last.endswith("BLAS kernels at the end: openblas SkylakeX, mkl")


def test_a_run_leaves_its_files_and_says_what_it_was(comm, folder):
    results = run(comm, options(h2=0.5))
    assert all(one == results for one in comm.allgather(results))
    assert results.command == "toy" and results.prefix == "o" and results.table()["A"].tolist() == [1]
    assert results.files == (Path("o.tsv"),)
    manifest = json.loads(Path("o.json").read_text())
    assert manifest == results.manifest
    words = ["mpgls", "toy", "--table", "in.txt", "--h2", "0.5", "--out", "o", "--threads", "1"]
    assert sorted(manifest["command_line"]) == sorted(words)
    assert (manifest["rows"], manifest["ranks_seen"], manifest["ranks"], manifest["threads"]) == (
        1, comm.size, comm.size, 1
    )  # fmt: skip
    assert [one["path"] for one in manifest["inputs"]] == ["in.txt"] and manifest["inputs"][0]["option"] == "--table"
    assert json.loads(manifest["made_from"])["options"] == {"--h2": 0.5}
    assert manifest["memory"]["peak_rss_max"] > 0 and len(manifest["memory"]["ranks"]) == comm.size
    text = read_log()
    assert f"mpgls toy: {comm.size} ranks on 1 node(s), 1 BLAS thread(s) a rank" in text and "done in" in text


def test_a_complete_run_is_left_as_it_is(comm, folder):
    first = run(comm, options(h2=0.5))
    made = Path("o.json").stat().st_mtime_ns
    comm.Barrier()
    done = []
    for again in (options(h2=0.5, resume=True), options(h2=0.5, resume=True, memory=3.0, threads=1)):
        assert run(comm, again, done) == first
        comm.Barrier()
    assert not done and Path("o.json").stat().st_mtime_ns == made
    assert read_log().count("o.json says that this run is complete: nothing is left to do") == 2


def test_what_only_resume_needs_goes_when_the_run_has_ended(comm, folder):
    """And if the run was killed before that, the next one sees to it."""

    def leave(text):
        for name in ("o.progress", "o.units.00000", "o.units.old", "o.watch", "other.progress"):
            Path(name).write_text(text)

    for resume, text in ((False, ""), (True, "of the run that has ended")):
        on_root(comm, functools.partial(leave, text))
        run(comm, options(resume=resume), until_done=(".progress", ".units.[0-9]*"))
        comm.Barrier()
        left = {path.name for path in folder.iterdir()}
        assert left == {"in.txt", "o.json", "o.log", "o.tsv", "o.units.old", "other.progress"}
        comm.Barrier()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: options(h2=0.25, resume=True), "--h2 was 0.5, now it is 0.25"),
        (lambda: options(h2=0.5, table=None, resume=True), "--table was given, now it is not given"),
    ],
)
def test_a_complete_run_of_other_options_is_refused(comm, folder, change, said):
    run(comm, options(h2=0.5))
    with pytest.raises(InputError, match=r"o\.json was made from other inputs or options.*" + said):
        run(comm, change())
    assert Path("o.tsv").exists()


def test_a_complete_run_of_other_inputs_is_refused(comm, folder):
    run(comm, options())
    on_root(comm, lambda: Path("in.txt").write_text("changed\n"))
    with pytest.raises(InputError, match="the file of --table is another"):
        run(comm, options(resume=True))


def test_a_table_that_is_gone_is_made_again(comm, folder):
    run(comm, options())
    on_root(comm, lambda: Path("o.tsv").unlink())
    done = []
    run(comm, options(resume=True), done)
    assert done and Path("o.tsv").exists()


def test_a_fresh_run_removes_what_an_earlier_one_left(comm, folder):
    run(comm, options())
    with open_job(options(), comm, (".tsv",)) as job:
        assert not job.is_complete()
        comm.Barrier()
        assert not Path("o.tsv").exists() and not Path("o.json").exists()
    comm.Barrier()
    run(comm, options())
    with open_job(options(), comm, (".tsv",), adds=True) as job:
        comm.Barrier()
        assert Path("o.tsv").exists() and Path("o.json").exists()
        comm.Barrier()
        job.remove_earlier()
        assert not Path("o.tsv").exists()


def test_two_runs_may_share_a_prefix(comm, folder):
    run(comm, options())
    run(comm, options(Beside))
    assert Path("o.json").exists() and Path("o.beside.json").exists() and Path("o.beside.log").exists()
    assert "done in" in read_log("o.beside")


# -- a run that does not ------------------------------------------------------------------------------------------


def test_a_signal_to_one_rank_stops_all_with_the_same_advice(comm, folder):
    with pytest.raises(Stopped) as stopped, open_job(options(h2=0.5), comm) as job:
        if comm.rank == comm.size - 1:
            job.world.stop.ask()
        job.world.raise_if_stopped()
    assert str(stopped.value).startswith("stopped by a signal; go on with: mpgls toy ")
    assert str(stopped.value).endswith(" --resume") and "--h2 0.5" in str(stopped.value)
    assert not Path("o.json").exists()


def test_a_failure_leaves_no_manifest_and_a_resumed_run_goes_on_with_the_log(comm, folder):
    with pytest.raises(InputError, match="spoilt"), open_job(options(), comm) as job:
        job.identify()
        job.world.log.info("the first try")
        with job.world.together():
            if comm.rank == comm.size - 1:
                raise InputError("spoilt")
    assert not Path("o.json").exists()
    done = []
    run(comm, options(resume=True), done)
    assert done
    comm.Barrier()
    assert "the first try" in read_log() and "done in" in read_log()
    comm.Barrier()
    run(comm, options())
    assert "the first try" not in read_log()


@pytest.mark.parametrize(
    ("out", "error", "said"),
    [
        ("folder/", UsageError, "--out folder/ must end in a prefix"),
        (".", UsageError, "--out . must end in a prefix"),
        ("", UsageError, "--out '' must end in a prefix"),
        ("none/o", StorageError, "cannot write none/o: there is no directory"),
        ("in", UsageError, "the run would overwrite its input in.tsv"),
        ("taken", StorageError, "cannot write taken.tsv: it is a directory"),
    ],
)
def test_places_where_results_cannot_go(comm, folder, out, error, said):
    on_root(comm, lambda: (Path("in.tsv").write_text("an input\n"), Path("taken.tsv").mkdir()))
    with pytest.raises(error, match=said):
        run(comm, options(out=out, table="in.tsv"))
    assert Path("in.tsv").read_text() == "an input\n" and not list(folder.glob("*.json"))


def test_an_input_that_is_gone(comm, folder):
    with open_job(options(table="none.txt"), comm) as job, pytest.raises(StorageError, match=r"cannot read none\.txt"):
        job.identify()
    comm.Barrier()
    with open_job(options(table="none.txt", resume=True), comm) as job:
        assert not job.is_complete()  # whoever opens the study says it better


# -- what it keeps and may use ------------------------------------------------------------------------------------


def test_what_is_kept_has_the_mark_of_the_run(comm, folder):
    on_root(comm, lambda: Path("more.txt").write_text("more\n"))
    with open_job(options(h2=0.5), comm) as job:
        mark = job.identify(images=["more.txt"])
        assert mark == job.mark and [one["option"] for one in job.identities] == ["--table", "images"]
        found = json.loads(mark.text)
        assert found["command"] == "toy" and set(found["inputs"]) == {"--table", "images"}
        state, part = job.state(), job.state(".part.h5", part="X")
        assert (state.path, part.path) == (Path("o.progress"), Path("o.part.h5"))
        assert part.mark == mark.narrowed(part="X")
        job.world.on_root(lambda: state.save({"rounds": 3}, {"h2": np.ones(2)}))
        assert job.world.on_root(state.load).facts == {"rounds": 3}


def test_the_machine_is_what_options_and_ranks_allow(comm, folder):
    with open_job(options(memory=1.5), comm) as job:
        machine = job.machine()
        assert (machine.ranks, machine.ranks_per_node, machine.limit) == (comm.size, comm.size, 3 << 29)
        assert machine.base > 0 and len(set(comm.allgather(machine.base))) == 1
    comm.Barrier()
    with open_job(options(), comm) as job:
        assert job.machine().limit is None


def test_a_fresh_run_removes_what_a_killed_one_had_not_finished(comm, folder):
    """The killed run listed what it was making; what another program keeps beside it stays."""

    def leave() -> None:
        Path("o.json.partial").write_text(json.dumps({"command": "toy", "files": ["o.tsv", "o.B.tsv", "o.watch"]}))
        for name in ("o.tsv.partial", "o.B.tsv.partial", "o.watch", "o.C.tsv.partial"):
            Path(name).write_text("half a table")

    on_root(comm, leave)
    run(comm, options())
    comm.Barrier()
    assert sorted(path.name for path in folder.glob("o.*")) == ["o.C.tsv.partial", "o.json", "o.log", "o.tsv"]


def test_hours_and_stall_change_no_results(comm, folder):
    run(comm, options(max_hours=3.0, stall=0.0))
    done = []
    run(comm, options(max_hours=5.0, resume=True), done)
    assert not done
