"""The study and the commands of ``faults.py``, how a run of them is started and how it may end, and what it made."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import THREAD_VARIABLES, BenchError
from same_bytes import as_bytes
from same_results_inputs import write_nifti

ALLOWED = (0, 2, 3, 4, 5, 6)
"""Exit codes of a run that nobody stopped."""
LIMIT = 60.0
"""Seconds in which any run must end, on a busy machine too."""
NOT_COMPARED = {".json", ".log", ".lock", ".png"}
"""Endings of files that say when and how fast a run was, or are drawn of the others."""
TOKEN = "token"
NOT_OF_NUMBERS = (f"/@{TOKEN}", "/@kinship", "/@made_from", "/@sum")
"""Attributes that tell files apart: random bytes, hashes of inputs, and the checksum of a file with these."""
SIGNALS = ("signal 11", "Segmentation fault", "signal 6", "signal 7", "signal 8")
"""What a launcher says when a rank crashed."""
MEMORY_LIMIT = 6 << 30
"""Bytes of address space that a run on mutated files may take."""
SCAN = "--block-size 10 --checkpoint 0 --no-plots"


@dataclass(frozen=True)
class Case:
    """A command line without --out; ``reads`` are the files of the study that it reads."""

    line: str
    reads: tuple[str, ...]
    resumable: bool = True


PLINK = ("sim.bed", "sim.bim", "sim.fam")
PHENO = "--pheno sim.pheno.tsv"
CASES: dict[str, Case] = {
    "simulate": Case("simulate --samples 301 --snps 3000 --chromosomes 3 --traits 2", ()),
    "kinship": Case("kinship --bfile sim --loco --keep keep.txt", (*PLINK, "keep.txt")),
    "eigen": Case("eigen --grm K.h5", ("K.h5",)),
    "single-trait": Case(
        f"single-trait --bfile sim --grm K.h5 {PHENO} --covar sim.covar.tsv {SCAN}",
        (*PLINK, "K.h5", "sim.pheno.tsv", "sim.covar.tsv"),
    ),
    "gcta": Case(f"single-trait --bfile sim --grm G {SCAN}", (*PLINK, "G.grm.bin", "G.grm.id", "G.grm.N.bin")),
    "given-eigen": Case(
        f"single-trait --bfile sim --eigen E.h5 --h2-file h2.tsv {SCAN}", (*PLINK, "E.h5", "h2.tsv")
    ),
    "loco": Case(f"single-trait --bfile sim --grm K.h5 --loco {SCAN}", (*PLINK, "K.h5")),
    "multi-trait": Case(
        f"multi-trait --bfile sim {PHENO} --grm K.h5 --dense --p-threshold 0.1 --pass-traits 1 {SCAN}",
        (*PLINK, "K.h5", "sim.pheno.tsv"),
    ),
    "multi-h5": Case(
        f"multi-trait --bfile sim --pheno traits.h5 --grm K.h5 --p-threshold 0.1 {SCAN}", (*PLINK, "K.h5", "traits.h5")
    ),
    "low-rank": Case(
        f"low-rank --bfile sim --similarity-snps similar.txt {PHENO} {SCAN}",
        (*PLINK, "similar.txt", "sim.pheno.tsv"),
    ),
    "vgwas-extract": Case(
        "vgwas-extract --images brain.images.tsv --mask mask.nii.gz",
        ("brain.images.tsv", "mask.nii.gz", "brain.images/01.nii.gz"),
    ),
    "vgwas": Case(f"vgwas --bfile sim --voxels voxels.h5 --permutations 20 {SCAN}", (*PLINK, "voxels.h5")),
    "ridge": Case(
        f"ridge --bfile sim {PHENO} --outer-folds 4 --inner-folds 3 --permutations 20 {SCAN}",
        (*PLINK, "sim.pheno.tsv"),
    ),
    "export": Case("export dense.h5 --trait trait1 trait2", ("dense.h5", "sim.bim")),
    "simulate-images": Case(
        "simulate-images --bfile sim --mask mask.nii.gz --causal 3", (*PLINK, "mask.nii.gz")
    ),
}  # fmt: skip


def make_study(folder: Path) -> None:
    """Everything that the commands read, made once; ``folder`` is complete or not there."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def made(line: str) -> None:
        ended = alone(line.split(), folder)
        if ended.code != 0:
            raise BenchError(f"{line}: {ended.text}")

    made("simulate --samples 60 --snps 200 --chromosomes 3 --traits 3 --missing 0.02 --out sim")
    ids = [line.split()[:2] for line in (folder / "sim.fam").read_text().splitlines()]
    snps = [line.split()[1] for line in (folder / "sim.bim").read_text().splitlines()]
    write_lines(folder / "keep.txt", [" ".join(who) for who in ids[2:58]])
    write_lines(folder / "similar.txt", snps[::6])
    write_lines(folder / "h2.tsv", ["TRAIT\tH2", "pheno\t0.4"])
    made("kinship --bfile sim --loco --out K")
    made("kinship --bfile sim --grm-bin --out G")
    made("eigen --grm K.h5 --out E")
    made(f"{CASES['multi-trait'].line} --out dense")
    traits_as_h5(folder)
    mask = (np.random.default_rng(0).random((5, 6, 4)) < 0.6).astype(np.uint8)
    write_nifti(folder / "mask.nii.gz", mask, 2)
    made(f"{CASES['simulate-images'].line} --out brain")
    made(f"{CASES['vgwas-extract'].line} --out voxels")
    (folder / "complete").touch()


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def traits_as_h5(folder: Path) -> None:
    """The traits of the table as HDF5."""
    import h5py

    header, *rows = [line.split() for line in (folder / "sim.pheno.tsv").read_text().splitlines()]
    with h5py.File(folder / "traits.h5", "w") as file:
        file["traits"] = np.array([row[2:] for row in rows], dtype=float).T.copy()
        file.create_dataset("names", data=header[2:], dtype=h5py.string_dtype())
        file.create_dataset("samples", data=[" ".join(row[:2]) for row in rows], dtype=h5py.string_dtype())


# -- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a run ended: ``code``, None for one that did not within `LIMIT`; ``text`` is all that it wrote."""

    code: int | None
    text: str

    def fault(self, allowed: Sequence[int] = ALLOWED) -> str:
        """What is wrong with the way in which it ended; empty where nothing is."""
        if self.code is None:
            return "hang"
        if "Traceback" in self.text:
            return "traceback"
        if self.code < 0 or self.code > 128 or any(one in self.text for one in SIGNALS):
            return "signal"
        if self.code not in allowed:
            return f"exit code {self.code}"
        sentences = [line for line in self.text.splitlines() if line.startswith("mpgls")]
        return "" if self.code == 0 or len(sentences) == 1 else f"{len(sentences)} sentences"


def alone(arguments: Sequence[str], folder: Path) -> Ended:
    """``mpgls`` on one rank, in a child of this process, which has what it imports already. MPI starts in the child."""
    output = folder / ".said"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _become(arguments, folder, output)
    end = time.monotonic() + LIMIT
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(None, output.read_text(errors="replace"))
        time.sleep(0.003)
    said = output.read_text(errors="replace")
    output.unlink()
    return Ended(os.waitstatus_to_exitcode(status), said)


def _become(arguments: Sequence[str], folder: Path, output: Path) -> None:
    """Be the program from now on; never returns."""
    from mpgls.__main__ import main

    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        main(list(arguments))
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(ranks: int, arguments: Sequence[str], folder: Path, output: Path) -> subprocess.Popen[bytes]:
    """``mpgls`` on ``ranks`` by mpirun; what it says goes to the file ``output``."""
    launcher = shutil.which("mpirun") or shutil.which("mpiexec")
    if launcher is None:
        raise BenchError("there is no mpirun: `. jobs/env.sh` first")
    # the kernel of BLAS is that of `alone`, because its last digits are its own
    env = (
        os.environ
        | dict.fromkeys(THREAD_VARIABLES, "1")
        | {"OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
    )
    env |= {"OMPI_MCA_mpi_yield_when_idle": "1"}
    if os.getuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [launcher, "-n", str(ranks), sys.executable, "-m", "mpgls", *arguments]
    with open(output, "wb") as said:
        return subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )


def finished(process: subprocess.Popen[bytes], output: Path) -> Ended:
    """Wait for a started run, at most `LIMIT` seconds from now; one that hangs is ended with all its ranks."""
    code: int | None = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = process.wait(LIMIT)
    if code is None:
        process.terminate()  # mpirun ends its ranks when it is asked to
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
    return Ended(code, output.read_text(errors="replace"))


def run(ranks: int, arguments: Sequence[str], folder: Path) -> Ended:
    """``mpgls`` to its end; one rank is no child of mpirun."""
    if ranks == 1:
        return alone(arguments, folder)
    output = folder / ".said"
    ended = finished(start(ranks, arguments, folder, output), output)
    output.unlink()
    return ended


def ranks_of(launcher: int) -> list[int]:
    """The processes of the ranks: Open MPI's mpirun starts them itself, MPICH's by a proxy on each node."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    proxies = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().startswith("hydra_pmi_proxy")]
    return [*(int(pid) for pid in children if pid not in proxies), *(r for pid in proxies for r in ranks_of(int(pid)))]


# -- what a run made --------------------------------------------------------------------------------------------------


def contents(folder: Path, prefix: str) -> dict[str, Any]:
    """What each file of a run holds, by its name without the prefix; unreadable ones hold None."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(f"{prefix}.*")):
        name = str(path.relative_to(folder)).removeprefix(prefix)
        if path.is_dir():
            found |= {f"{name}/{one.name}": one.read_bytes() for one in sorted(path.iterdir())}
        elif path.suffix == ".h5":
            found |= {f"{name}:{key}": values for key, values in datasets(path).items()}
        elif path.suffix not in NOT_COMPARED:
            found[name] = path.read_bytes().replace(f"{prefix}.".encode(), b".")  # lists of files name them
    return found


def datasets(path: Path) -> Mapping[str, Any]:
    """Every dataset and attribute of an HDF5 file but its token, which tells runs apart."""
    import h5py

    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        found.update({f"{name}@{key}": np.asarray(value).tolist() for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            found[name] = as_bytes(np.asarray(item[()]))

    with h5py.File(path, "r") as file:
        note("/", file)
        file.visititems(note)
    return {name: values for name, values in found.items() if name not in (TOKEN, *NOT_OF_NUMBERS)}


def difference(whole: Mapping[str, Any], other: Callable[[], Mapping[str, Any]]) -> str:
    """The first thing that ``other`` has otherwise; empty where all is the same."""
    try:
        found = other()
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        return f"unreadable: {error}"
    names = [name for name in {**whole, **found} if whole.get(name) != found.get(name)]
    return ", ".join(names[:3])


def clear(folder: Path, prefix: str) -> None:
    """Remove the files of a run."""
    for path in folder.glob(f"{prefix}.*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
