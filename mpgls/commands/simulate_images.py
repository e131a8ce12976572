"""mpgls simulate-images: brain images of genotyped people, to try a voxelwise scan on ([vGWAS] section 3.2).

    y_i = sum_k a_k x_ik S_k + e_i      a few causal SNPs, each in a sphere of the mask; e_i smooth Gaussian noise

People are dealt to the ranks in contiguous ranges, and each image is made and written by itself. The bytes are the
same on any number of ranks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions, open_study
from mpgls.commands.common.session import RunOptions, Session
from mpgls.engine.images import check_memory, each_person
from mpgls.errors import InputError, StorageError, UsageError
from mpgls.mpi import on_root
from mpgls.run.world import World
from mpgls.stream.voxel_rows import voxel_rows
from mpgls.study.filters import passes
from mpgls.study.genotypes import Decoder
from mpgls.study.nifti import Mask, read_mask, write_image
from mpgls.study.synthetic_haplotypes import stream
from mpgls.study.synthetic_images import IMAGE_SNPS, ImageRecipe, SmoothNoise, Sphere, signs, spheres

if TYPE_CHECKING:
    from mpi4py import MPI

FORMATS = ("nifti", "h5")
RADIUS = 10.0
"""Of an effect, in mm, when neither radius nor volume is given."""
LOOKED_AT, TRIED = 256, 100_000
"""SNPs that are decoded together when causal ones are drawn, and most SNPs that are tried."""


@dataclass(frozen=True)
class SimulateImagesConfig:
    """Options of ``mpgls simulate-images``.

    ``causal`` SNPs are drawn from those that pass the filters of ``study``; each acts within ``radius`` mm of a random
    voxel, or in the ``volume`` voxels nearest to it, with ``snr`` times the variance of the noise; ``sigma`` mm.
    """

    run: RunOptions
    study: StudyOptions
    mask: str
    form: str = "nifti"
    causal: int = 10
    radius: float | None = None
    volume: int | None = None
    snr: float = 0.05
    sigma: float = 3.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {self.form}")
        if self.radius is not None and self.volume is not None:
            raise UsageError("give --effect-radius or --effect-volume, not both")
        ranges: list[tuple[str, float, float, float]] = [
            ("causal", self.causal, 0, 10_000),
            ("effect-radius", RADIUS if self.radius is None else self.radius, 0, 1e4),
            ("effect-volume", 1 if self.volume is None else self.volume, 1, 2**31 - 1),
            ("snr", self.snr, 0, 1e6),
            ("sigma-mm", self.sigma, 0, 100),
            ("seed", self.seed, 0, 2**63 - 1),
        ]
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise UsageError(f"--{name} must be between {low:,} and {high:,}, but it is {value}")


@dataclass(frozen=True, eq=False)
class CausalSnps:
    """The SNPs with an effect: ``ids``, standardised dosages ``x`` (c, n) and ``sd`` (c,) of the copies of A1."""

    ids: list[str]
    x: np.ndarray
    sd: np.ndarray


def run(config: SimulateImagesConfig, comm: MPI.Comm) -> None:
    """Make the images. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    inputs = [*config.study.files(), config.mask]
    session = Session("simulate-images", config.run, comm, (".h5", ".images.tsv", ".causal.tsv"), inputs)
    session.stop.advice = "run the same command again"
    world = World(comm, session.log, session.timings, session.stop)
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False)
        mask = on_root(comm, lambda: read_mask(config.mask))
        causal = on_root(comm, lambda: draw_causal(study, config))
    radius = RADIUS if config.radius is None and config.volume is None else config.radius
    places = spheres(mask, config.causal, config.seed, radius, config.volume)
    noise = SmoothNoise(mask, config.sigma, config.seed)
    effects = np.sqrt(config.snr) * signs(config.causal, config.seed)
    recipe = ImageRecipe(noise, causal.x, effects, places)
    all_ids = study.fileset.samples.ids()
    ids = [all_ids[row] for row in study.samples]
    v = int(mask.inside.sum())
    session.log.info(f"{len(ids):,} people x {v:,} voxels, {config.causal} causal SNPs")
    # for each voxel of the mask its coordinates and the values, and for each of the grid the mask and the image
    check_memory(noise.nbytes + causal.x.nbytes + 48 * v + 5 * mask.inside.size, session.machine(), world.log)
    write = write_matrix if config.form == "h5" else write_images
    made = write(recipe, ids, study.samples, mask, session.prefix, world)
    table = session.path(".causal.tsv")
    on_root(comm, lambda: write_causal(table, causal, effects / causal.sd, places))
    session.log.info(f"wrote {made} and {table}")
    facts = {"n": len(ids), "voxels": v, "snr": config.snr, "sigma_mm": config.sigma}
    session.finish({**facts, "seed": config.seed, "causal": causal.ids, "files": [str(made), str(table)]})


def draw_causal(study: Study, config: SimulateImagesConfig) -> CausalSnps:
    """Random SNPs that pass the filters and vary, with a missing genotype at the mean. On rank 0.

    Raises InputError when there are too few, StorageError when the genotypes cannot be read.
    """
    assert study.selection is not None
    bed, index = study.fileset.bed, study.selection.index
    order = stream(config.seed, IMAGE_SNPS).choice(index.size, size=min(index.size, TRIED), replace=False)
    decoder = Decoder(bed.n, [study.samples], np.float64)
    ids: list[str] = []
    x: list[np.ndarray] = []
    for start in range(0, order.size, LOOKED_AT):
        if len(ids) >= config.causal:
            break
        wanted = index[order[start : start + LOOKED_AT]]
        packed = np.stack([_packed(study, int(k)) for k in wanted])
        values = np.empty((study.samples.size, wanted.size), order="F")
        stats = decoder.decode(packed, [values])
        for j in np.flatnonzero(passes(stats, config.study.snps) & ~stats.monomorphic)[: config.causal - len(ids)]:
            ids.append(study.fileset.variants.read(int(wanted[j]), int(wanted[j]) + 1).id[0])
            x.append(values[:, j])
    if len(ids) < config.causal:
        raise InputError(
            f"only {len(ids)} of {order.size:,} SNPs drawn from {study.fileset.prefix}.bim vary and pass --maf and "
            f"--geno: choose --causal {len(ids)} or fewer"
        )
    dosages = np.array(x).reshape(len(ids), study.samples.size)
    # sums of squares in a fixed order, so that the bytes do not depend on BLAS
    sd = np.sqrt(np.square(dosages).mean(axis=1))
    return CausalSnps(ids, dosages / sd[:, None], sd)


def write_matrix(
    recipe: ImageRecipe, ids: Sequence[tuple[str, str]], people: np.ndarray, mask: Mask, prefix: str, world: World
) -> Path:
    """PREFIX.h5, the voxel matrix. Collective."""
    path = Path(prefix + ".h5")
    with voxel_rows(path, ids, mask, world.comm) as rows:

        def make(i: int) -> None:
            with world.phase("make images"):
                values = recipe.image(i, int(people[i]))
            with world.phase("write", nbytes=values.nbytes):
                rows.write(i, values)

        each_person(len(ids), world, "images", make)
    return path


def write_images(
    recipe: ImageRecipe, ids: Sequence[tuple[str, str]], people: np.ndarray, mask: Mask, prefix: str, world: World
) -> Path:
    """PREFIX.images/NUMBER.nii.gz of every person, zero outside the mask; and PREFIX.images.tsv last. Collective."""
    folder, table = Path(prefix + ".images"), Path(prefix + ".images.tsv")
    world.on_root(lambda: _make_folder(folder))
    digits = len(str(len(ids)))
    names = [f"{i + 1:0{digits}d}.nii.gz" for i in range(len(ids))]

    def make(i: int) -> None:
        with world.phase("make images"):
            volume = np.zeros(mask.shape, dtype=np.float32)
            volume[mask.inside] = recipe.image(i, int(people[i]))
        with world.phase("write", nbytes=volume.nbytes):
            write_image(folder / names[i], volume, mask.affine)

    each_person(len(ids), world, "images", make)
    lines = [f"{fid}\t{iid}\t{folder.name}/{name}\n" for (fid, iid), name in zip(ids, names, strict=True)]
    world.on_root(lambda: _write_text(table, ["FID\tIID\tPATH\n", *lines]))
    return table


def write_causal(path: Path, causal: CausalSnps, effects: np.ndarray, places: Sequence[Sphere]) -> None:
    """The truth: SNP, effect of a copy of A1 in units of the noise's SD, centre i j k, radius in mm, voxels."""
    lines = ["SNP\teffect\ti\tj\tk\tradius_mm\tvoxels\n"]
    for name, effect, sphere in zip(causal.ids, effects.tolist(), places, strict=True):
        i, j, k = sphere.centre.tolist()
        lines.append(f"{name}\t{effect:.8g}\t{i}\t{j}\t{k}\t{sphere.radius:.6g}\t{sphere.voxels.size}\n")
    _write_text(path, lines)


def _packed(study: Study, snp: int) -> np.ndarray:
    bed = study.fileset.bed
    try:
        return np.fromfile(bed.path, dtype=np.uint8, count=bed.snp_bytes, offset=bed.offset(snp))
    except OSError as error:
        raise StorageError(f"cannot read {bed.path}: {error.strerror or error}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder}: {error.strerror or error}") from None


def _write_text(path: Path, lines: Sequence[str]) -> None:
    """The whole file or nothing."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text("".join(lines), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
