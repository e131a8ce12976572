"""mpgls simulate-images: brain images of genotyped people, to try a voxelwise scan on ([vGWAS] section 3.2).

    y_i = sum_k a_k x_ik S_k + e_i      a few causal SNPs, each in a sphere of the mask; e_i smooth Gaussian noise

People are dealt to the ranks in contiguous ranges, and each image is made and written by itself. The bytes are the
same on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.engine.images import check_memory, each_person
from mpgls.engine.snp_stream import read_alone
from mpgls.errors import UsageError
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.inputs import Study, open_study
from mpgls.run.job import open_job
from mpgls.run.option_groups import RunOptions
from mpgls.run.options import between, option, required, the_file
from mpgls.run.results import Results
from mpgls.run.world import World
from mpgls.stream.files import write_text, writing
from mpgls.stream.voxel_rows import voxel_rows
from mpgls.study.images import ITEM
from mpgls.study.nifti import Mask, read_mask, write_image
from mpgls.study.synthetic_images import CausalSnps, ImageRecipe, SmoothNoise, Sphere, draw_causal, signs, spheres
from mpgls.study.tables import SampleId

if TYPE_CHECKING:
    from mpi4py import MPI

RADIUS = 10.0
"""Of an effect, in mm, when neither radius nor volume is given."""


@dataclass(frozen=True, kw_only=True)
class SimulateImages(GenotypeOptions, RunOptions):
    """Options of ``mpgls simulate-images``."""

    command = "simulate-images"
    summary = "brain images of genotyped people: spherical effects of causal SNPs in smooth noise"
    example = "mpirun -n 4 mpgls simulate-images --bfile mice --mask mask.nii.gz --causal 10 --out sim"

    maf: float = option(
        0.05,
        "smallest minor allele frequency (0.05)",
        group="genotypes and filters",
        metavar="FREQ",
        check=between(0, 0.5),
    )
    mask: str = required(
        "3-D image: the grid, not zero inside the brain", group="images", metavar="NIFTI", reads=the_file
    )
    format: str = option(
        "nifti",
        "nifti: one image a person and their list; h5: the voxel matrix that vgwas-extract would make of them",
        group="images",
        choices=("nifti", "h5"),
    )
    causal: int = option(10, "SNPs with an effect (10)", group="images", metavar="C", check=between(0, 10_000))
    effect_radius: float | None = option(
        None,
        f"radius of every effect in mm ({RADIUS:g})",
        group="images",
        metavar="MM",
        check=between(0, 10_000),
    )
    effect_volume: int | None = option(
        None,
        "voxels of every effect, instead of a radius",
        group="images",
        metavar="VOXELS",
        check=between(1, 2**31 - 1),
    )
    snr: float = option(
        0.05,
        "variance of a SNP's effect over that of the noise, in each voxel of its sphere (0.05)",
        group="images",
        metavar="X",
        check=between(0, 1e6),
    )
    sigma_mm: float = option(3.0, "smoothing of the noise (3)", group="images", metavar="MM", check=between(0, 100))
    seed: int = option(
        1, "the same seed makes the same bytes (1)", group="images", metavar="S", check=between(0, 2**63 - 1)
    )

    def check(self) -> None:
        super().check()
        if self.effect_radius is not None and self.effect_volume is not None:
            raise UsageError("give --effect-radius or --effect-volume, not both")

    @property
    def radius(self) -> float | None:
        """Of every effect, in mm; None where its volume is given."""
        return RADIUS if self.effect_radius is None and self.effect_volume is None else self.effect_radius


@dataclass(frozen=True, eq=False)
class People:
    """Whose images are made: ``ids``, and the ``rows`` of the .fam, which key their noise."""

    ids: Sequence[SampleId]
    rows: np.ndarray

    @classmethod
    def of(cls, study: Study) -> People:
        """The analysed samples."""
        ids = study.fileset.samples.ids()
        return cls([ids[row] for row in study.samples], study.samples)


def run(options: SimulateImages, comm: MPI.Comm) -> Results:
    """Make the images. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, (".h5", ".images.tsv", ".causal.tsv"), further=(".images/",)) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            study = open_study(options, world, traits=False)
            mask = world.on_root(lambda: read_mask(options.mask))
            causal = world.on_root(lambda: draw(options, study))
            job.identify()
            people, v = People.of(study), int(mask.inside.sum())
            job.check_room({".h5" if options.format == "h5" else ".images/": ITEM * len(people.ids) * v})
            places = spheres(mask, options.causal, options.seed, options.radius, options.effect_volume)
            noise = SmoothNoise(mask, options.sigma_mm, options.seed)
            effects = np.sqrt(options.snr) * signs(options.causal, options.seed)
            world.log.info(f"{len(people.ids):,} people x {v:,} voxels, {options.causal} causal SNPs")
            # for each voxel of the mask its coordinates and the values, and for each of the grid the mask and the image
            check_memory(noise.nbytes + causal.x.nbytes + 48 * v + 5 * mask.inside.size, job.machine(), world.log)
        write, table = write_matrix if options.format == "h5" else write_images, job.path(".causal.tsv")
        with world.phase("write"):
            made = write(ImageRecipe(noise, causal.x, effects, places), people, mask, job.prefix, world)
            world.on_root(lambda: write_causal(table, causal, effects / causal.sd, places))
        world.log.info(f"wrote {made} and {table}")
        facts = {"n": len(people.ids), "voxels": v, "snr": options.snr, "sigma_mm": options.sigma_mm}
        return job.finish({**facts, "seed": options.seed, "causal": causal.ids}, files=[made], tables={"causal": table})


def draw(options: SimulateImages, study: Study) -> CausalSnps:
    """The causal SNPs. On rank 0."""
    assert study.selection is not None
    return draw_causal(
        study.fileset,
        study.selection.index,
        study.samples,
        options.snps,
        lambda rows: read_alone(study.fileset.bed, rows),
        count=options.causal,
        seed=options.seed,
    )


def write_matrix(recipe: ImageRecipe, people: People, mask: Mask, prefix: str, world: World) -> Path:
    """PREFIX.h5, the voxel matrix. Collective."""
    path = Path(prefix + ".h5")
    with voxel_rows(path, people.ids, mask, world.comm) as rows:

        def make(i: int) -> None:
            with world.phase("make images"):
                values = recipe.image(i, int(people.rows[i]))
            with world.phase("write", nbytes=values.nbytes):
                rows.write(i, values)

        each_person(len(people.ids), world, "images", make)
    return path


def write_images(recipe: ImageRecipe, people: People, mask: Mask, prefix: str, world: World) -> Path:
    """PREFIX.images/NUMBER.nii.gz of every person, zero outside the mask; and PREFIX.images.tsv last. Collective."""
    folder, table = Path(prefix + ".images"), Path(prefix + ".images.tsv")
    with world.together(), writing(folder):
        if world.rank == 0:
            folder.mkdir(exist_ok=True)
    digits = len(str(len(people.ids)))
    names = [f"{i + 1:0{digits}d}.nii.gz" for i in range(len(people.ids))]

    def make(i: int) -> None:
        with world.phase("make images"):
            volume = np.zeros(mask.shape, dtype=np.float32)
            volume[mask.inside] = recipe.image(i, int(people.rows[i]))
        with world.phase("write", nbytes=volume.nbytes):
            write_image(folder / names[i], volume, mask.affine)

    each_person(len(people.ids), world, "images", make)
    lines = [f"{fid}\t{iid}\t{folder.name}/{name}\n" for (fid, iid), name in zip(people.ids, names, strict=True)]
    world.on_root(lambda: write_text(table, ["FID\tIID\tPATH\n", *lines]))
    return table


def write_causal(path: Path, causal: CausalSnps, effects: np.ndarray, places: Sequence[Sphere]) -> None:
    """The truth: SNP, effect of a copy of A1 in units of the noise's SD, centre i j k, radius in mm, voxels."""
    lines = ["SNP\teffect\ti\tj\tk\tradius_mm\tvoxels\n"]
    for name, effect, sphere in zip(causal.ids, effects.tolist(), places, strict=True):
        i, j, k = sphere.centre.tolist()
        lines.append(f"{name}\t{effect:.8g}\t{i}\t{j}\t{k}\t{sphere.radius:.6g}\t{sphere.voxels.size}\n")
    write_text(path, lines)
