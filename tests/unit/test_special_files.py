"""What is no file, as an input or where an output goes, and names that are too long: one sentence, before the work."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launch import LIMIT
from refusals import STORAGE, check, refused
from resident import mpgls, must_succeed

import mpgls as face
from mpgls.commands import COMMANDS, options_of
from mpgls.engine.rates import read_rates
from mpgls.errors import StorageError
from mpgls.report.file_names import ENDINGS_OF_MAP
from mpgls.run.options import declared
from mpgls.run.outputs import Outputs
from mpgls.study.nifti import read_mask
from mpgls.study.regular import check_regular


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": make_pipe,
    "socket": make_socket,
    "directory": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
}
NEEDED: dict[str, dict[str, Any]] = {
    "kinship": {"bfile": "no"},
    "eigen": {"grm": "no"},
    "single-trait": {"bfile": "no", "grm": "no"},
    "multi-trait": {"bfile": "no", "grm": "no", "pheno": "no"},
    "low-rank": {"bfile": "no", "similarity_every": 2},
    "vgwas-extract": {"images": "no", "mask": "no"},
    "vgwas": {"bfile": "no", "voxels": "no"},
    "ridge": {"bfile": "no", "pheno": "no"},
    "score": {"bfile": "no", "weights": "no"},
    "export": {"store": "no.h5"},
    "merge": {"kinships": "no.h5"},
    "simulate-images": {"bfile": "no", "mask": "no"},
}
"""What a command cannot do without."""
BESIDE: dict[str, dict[str, Any]] = {
    "bfile_list": {"bfile": None},
    "pfile": {"bfile": None},
    "pfile_list": {"bfile": None},
    "bgen": {"bfile": None},
    "sample": {"bfile": None, "bgen": "no"},
    "eigen": {"grm": None},
    "similarity_snps": {"similarity_every": None},
    "coordinates": {"pheno": "no", "voxels": None},
    "blocks_file": {"blocks": "b"},
    "images": {"mask": "no", "voxels": None, "pheno": None, "parcels": 2},
    "image_ids": {"images": "no", "mask": "no", "voxels": None, "pheno": None, "parcels": 2},
    "mask": {"images": "no", "voxels": None, "pheno": None, "parcels": 2},
    "voxels": {"pheno": None, "parcels": 2},
    "pheno": {"voxels": None},
    "grm_id": {"grm": "no"},
    "rates": {"dry_run": True},
    "tables": {"kinships": ()},
}
"""What goes with an option, and what does not (None)."""
READ = [(command, one.name) for command in NEEDED for one in declared(options_of(command)) if one.option.reads]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own; what waits for a pipe is ended."""

    def end(*_: object) -> None:
        raise TimeoutError

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(round(LIMIT))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_every_command_that_reads_files_is_tried() -> None:
    reading = [name for name in COMMANDS if any(one.option.reads for one in declared(options_of(name)))]
    assert sorted(reading) == sorted([*NEEDED, "plan"])


@pytest.mark.parametrize(("command", "name"), READ)
def test_a_pipe_as_an_input_of_any_option(command: str, name: str, tmp_path: Path) -> None:
    """It would hang where the pipe is opened, and it could be read only once."""
    known = {one.name: one for one in declared(options_of(command))}
    reads = known[name].option.reads
    assert reads is not None
    given = {key: value for key, value in {**NEEDED[command], **BESIDE.get(name, {})}.items() if key in known}
    given[name] = "odd"
    (path, *_) = map(Path, reads("odd"))
    make_pipe(path)
    with pytest.raises(StorageError, match=f"cannot read {path}: it is a pipe, .*: write what comes from it to a file"):
        getattr(face, command.replace("-", "_"))(**given, out="o")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file(kind: str) -> None:
    KINDS[kind](Path("odd"))
    for read in (check_regular, read_rates, read_mask):
        with pytest.raises(StorageError, match=f"cannot read odd: it is a {kind}"):
            read("odd")


def test_what_is_there_or_not_is_another_matter() -> None:
    Path("plain").touch()
    Path("link").symlink_to("plain")
    for name in ("plain", "link", "none"):
        check_regular(name)


def test_a_pipe_of_gctas_kinship_is_seen() -> None:
    make_pipe(Path("K.grm.bin"))
    with pytest.raises(StorageError, match=r"cannot read K\.grm\.bin: it is a pipe"):
        face.eigen(grm="K", out="o")


def test_all_ranks_refuse_a_pipe(tmp_path: Path) -> None:
    must_succeed(0, "simulate --samples 20 --snps 30 --out sim", tmp_path)
    make_pipe(tmp_path / "list")
    refused(tmp_path, "kinship --bfile sim --keep list --out o", STORAGE, "list: it is a pipe", ranks=(1, 3))
    refused(tmp_path, "kinship --bfile sim --keep /dev/zero --out o", STORAGE, "it is a device", ranks=(1,))


def test_an_image_of_a_list(tmp_path: Path) -> None:
    from small_images import write_images

    write_images(tmp_path, 4)
    odd = tmp_path / "images/brain 2.nii"
    odd.unlink()
    make_pipe(odd)
    refused(tmp_path, "vgwas-extract --images images.tsv --mask mask.nii.gz --out o", STORAGE, "brain 2.nii: it is a")


# -- where outputs go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["o.bed", "o.fam", "o.causal.tsv", "o.json", "o.log", "o.lock", "o.bim.partial"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_way_of_an_output(kind: str, name: str) -> None:
    KINDS[kind](Path(name))
    with pytest.raises(StorageError, match=f"cannot write {name}: it is a {kind}"):
        face.simulate(samples=20, snps=30, out="o")
    assert os.listdir() == [name]


def test_a_directory_in_the_way_of_what_an_earlier_run_made() -> None:
    face.simulate(samples=20, snps=30, out="o")
    Path("o.bed").unlink()
    Path("o.bed").mkdir()
    with pytest.raises(StorageError, match=r"cannot write o\.bed: it is a directory"):
        face.simulate(samples=20, snps=30, out="o")


def test_a_file_in_the_way_of_a_folder() -> None:
    Path("o.images").touch()
    with pytest.raises(StorageError, match=r"cannot write o\.images/: there is a file of that name"):
        Outputs("o", "simulate-images", "", ()).check([".images/"])


def test_a_prefix_that_is_too_long() -> None:
    most = os.pathconf(".", "PC_NAME_MAX") - len(".json.partial.partial")
    face.simulate(samples=20, snps=30, out="é" * (most // 2))
    before = set(os.listdir())
    for out in ("é" * (most // 2 + 1), "o" * 300):
        with pytest.raises(StorageError, match=r"its name has .* bytes, and .* takes .* give a shorter --out"):
            face.simulate(samples=20, snps=30, out=out)
    assert set(os.listdir()) == before


@pytest.mark.parametrize("ranks", [1, 3])
def test_tables_of_traits_whose_names_are_too_long_with_the_prefix(tmp_path: Path, ranks: int) -> None:
    """The name of a trait has letters of two bytes, of which a file's name keeps 120 bytes."""
    must_succeed(0, "simulate --samples 40 --snps 60 --out sim", tmp_path)
    must_succeed(0, "kinship --bfile sim --out K", tmp_path)
    rows = [line.split() for line in (tmp_path / "sim.pheno.tsv").read_text().splitlines()]
    rows[0][2] = "ü" * 200
    (tmp_path / "traits.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    line = "single-trait --bfile sim --pheno traits.tsv --grm K.h5 --no-plots --out "
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") - len(f".{'ü' * 60}.manhattan.png.partial".encode())
    must_succeed(ranks, line + "o" * longest, tmp_path)
    out = "p" * (longest + 1)
    check(
        mpgls(ranks, line + out, tmp_path), STORAGE, "give a shorter --out", "ü.manhattan.png: its name has 248 bytes"
    )
    assert not (tmp_path / f"{out}.h5").exists()


def test_maps_of_snps_are_named_when_the_work_is_done() -> None:
    """So their longest name is checked before it."""
    most = os.pathconf(".", "PC_NAME_MAX") - 8
    for ending in ENDINGS_OF_MAP:
        assert len(f".{'x' * 134}{ending}") < most
    given = {"bfile": "no", "voxels": "no", "maps": 1}
    with pytest.raises(StorageError, match="give a shorter --out"):
        face.vgwas(**given, out="o" * (most - 134))
    with pytest.raises(StorageError, match=r"no\.bed"):
        face.vgwas(**{**given, "maps": 0}, out="o" * (most - 134))
