"""Commands on brain images."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
    genotype_options,
    run_options,
    run_options_of,
    study_options_of,
    team_options,
    team_size,
)


def vgwas(commands: Any) -> None:
    """Declare ``mpgls vgwas``."""
    parser = add_command(
        commands,
        "vgwas",
        "every SNP against every voxel, with permutations and cluster inference",
        "mpirun -n 4 mpgls vgwas --bfile mice --voxels brain.h5 --covar covariates.tsv --permutations 1000 --out brain",
        _vgwas_config,
    )
    genotype_options(parser)
    _voxel_options(parser)
    _inference_options(parser)
    run_options(parser)
    parser.add_argument("--voxel-chunk", type=int, metavar="V", help="stream the voxels, so many at a time")
    team_options(parser)


def _voxel_options(parser: Any) -> None:
    group = parser.add_argument_group("voxels and confounds")
    group.add_argument("--voxels", metavar="FILE", help="voxel matrix made by mpgls vgwas-extract")
    group.add_argument("--images", metavar="FILE", help="or images, as mpgls vgwas-extract takes them, with --mask")
    group.add_argument("--image-ids", metavar="FILE", help="people (FID IID a line) of a 4-D image, in its order")
    group.add_argument("--mask", metavar="NIFTI", help="3-D image, not zero where voxels are analysed")
    group.add_argument("--pheno", metavar="FILE", help="or traits, a table or HDF5 as multi-trait takes them")
    group.add_argument("--pheno-name", nargs="+", default=(), metavar="NAME", help="columns of --pheno; default: all")
    group.add_argument(
        "--coordinates",
        metavar="FILE",
        help="table with header TRAIT I J K: where the traits of --pheno are neighbours",
    )
    group.add_argument("--covar", metavar="FILE", help="table with header FID IID NAME ...")
    group.add_argument("--covar-name", nargs="+", default=(), metavar="NAME", help="columns of --covar; default: all")
    group.add_argument(
        "--blocks", metavar="NAME",
        help="column (of numbers) with exchangeability blocks, sites or families: samples are permuted within them",
    )  # fmt: skip
    group.add_argument("--blocks-file", metavar="FILE", help="table that has the column, if --covar does not")


def _inference_options(parser: Any) -> None:
    group = parser.add_argument_group("inference")
    group.add_argument("--permutations", type=int, default=1000, metavar="P", help="permutations of the samples (1000)")
    group.add_argument(
        "--first-permutation", type=int, default=1, metavar="K", help="add permutations K, K + 1, ... to a finished run"
    )
    group.add_argument("--seed", type=int, default=1, metavar="S", help="key of the permutations (1)")
    group.add_argument(
        "--sparsity-threshold", type=float, default=1e-4, metavar="P",
        help="pairs with at most this p value are kept, and make volumes and clusters (1e-4)",
    )  # fmt: skip
    group.add_argument(
        "--connectivity", type=int, choices=(6, 18, 26), default=6, help="neighbours of a voxel in a cluster (6)"
    )
    group.add_argument("--tfce-step", type=float, default=0.1, metavar="T", help="step of TFCE, in units of t (0.1)")
    group.add_argument(
        "--tail", choices=("none", "gpd"), default="none",
        help="gpd: corrected p below 1 / (P + 1) from a generalised Pareto fit to the tail of the maxima",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("double", "mixed"), default="mixed",
        help="mixed searches in single precision and scores what it finds with sums in double (default)",
    )  # fmt: skip
    group.add_argument(
        "--maps", type=int, default=0, metavar="K", help="NIfTI maps and pictures of the K best SNPs (0)"
    )


def _vgwas_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.vgwas_parts.config import VgwasConfig

    names = (
        "voxels", "images", "image_ids", "mask", "coordinates", "blocks", "blocks_file", "sparsity_threshold",
        "permutations", "first_permutation", "seed", "connectivity", "tfce_step", "tail", "precision", "maps",
        "block_size", "voxel_chunk",
    )  # fmt: skip
    return VgwasConfig(
        run_options_of(given, argv),
        study_options_of(given),
        **{name: getattr(given, name) for name in names},
        team_size=team_size(given.team_size),
        plots=not given.no_plots,
    )


def vgwas_extract(commands: Any) -> None:
    """Declare ``mpgls vgwas-extract``."""
    parser = add_command(
        commands,
        "vgwas-extract",
        "brain images inside a mask as one voxel matrix, once, for many later runs",
        "mpirun -n 4 mpgls vgwas-extract --images images.tsv --mask mask.nii.gz --out brain",
        _vgwas_extract_config,
    )
    parser.add_argument(
        "--images", required=True, metavar="FILE",
        help="table with header FID IID PATH, one 3-D NIfTI a person, paths relative to the table; or one 4-D NIfTI",
    )  # fmt: skip
    parser.add_argument("--image-ids", metavar="FILE", help="people (FID IID a line) of a 4-D image, in its order")
    parser.add_argument("--mask", required=True, metavar="NIFTI", help="3-D image, not zero where voxels are analysed")
    run_options(parser, resume=False, blocks=False)


def _vgwas_extract_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.vgwas_extract import VgwasExtractConfig

    return VgwasExtractConfig(run_options_of(given, argv), given.images, given.mask, given.image_ids)


def simulate_images(commands: Any) -> None:
    """Declare ``mpgls simulate-images``."""
    parser = add_command(
        commands,
        "simulate-images",
        "brain images of genotyped people: spherical effects of causal SNPs in smooth noise",
        "mpirun -n 4 mpgls simulate-images --bfile mice --mask mask.nii.gz --causal 10 --out sim",
        _simulate_images_config,
    )
    genotype_options(parser)
    parser.set_defaults(maf=0.05)
    group = parser.add_argument_group("images")
    group.add_argument("--mask", required=True, metavar="NIFTI", help="3-D image: the grid, not zero inside the brain")
    group.add_argument(
        "--format", choices=("nifti", "h5"), default="nifti",
        help="nifti: one image a person and their list; h5: the voxel matrix that vgwas-extract would make of them",
    )  # fmt: skip
    group.add_argument("--causal", type=int, default=10, metavar="C", help="SNPs with an effect (10)")
    size = group.add_mutually_exclusive_group()
    size.add_argument("--effect-radius", type=float, metavar="MM", help="radius of every effect in mm (10)")
    size.add_argument("--effect-volume", type=int, metavar="VOXELS", help="voxels of every effect, instead of a radius")
    group.add_argument(
        "--snr", type=float, default=0.05, metavar="X",
        help="variance of a SNP's effect over that of the noise, in each voxel of its sphere (0.05)",
    )  # fmt: skip
    group.add_argument("--sigma-mm", type=float, default=3.0, metavar="MM", help="smoothing of the noise (3)")
    group.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed makes the same bytes (1)")
    run_options(parser, resume=False, blocks=False)


def _simulate_images_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.simulate_images import SimulateImagesConfig

    return SimulateImagesConfig(
        run_options_of(given, argv),
        study_options_of(given),
        mask=given.mask,
        form=given.format,
        causal=given.causal,
        radius=given.effect_radius,
        volume=given.effect_volume,
        snr=given.snr,
        sigma=given.sigma_mm,
        seed=given.seed,
    )
