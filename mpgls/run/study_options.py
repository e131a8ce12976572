"""Options that say what the study is beside its genotypes: traits, covariates, images and the kinship.

Several commands share them, under PLINK 2's names where it has them. Those of genotypes are `run.genotype_options`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.model.transform import DIRECT, NONE, RESIDUAL, Transform
from mpgls.run.options import Check, Options, flag, option, the_file
from mpgls.study.grm import kinship_files
from mpgls.study.missing import parse_missing_codes

TABLE = "table with columns FID IID NAME ...: text, CSV, Parquet or HDF5"
"""What --pheno and --covar take."""
NAMES = "names, ranges A-F, numbered PC{1:20}, patterns 'PC*', positions 1-500"
"""How columns of such a table are chosen."""


@dataclass(frozen=True, kw_only=True)
class MissingCodeOptions(Options):
    """How tables of numbers are read."""

    missing_code: tuple[str, ...] = option(
        (),
        "numbers that mean missing in --pheno, --covar and the .fam, such as -9; NA and empty fields always do",
        group="traits and covariates",
        metavar="CODE",
    )

    def check(self) -> None:
        super().check()
        _ = self.missing_codes  # what is no number

    @property
    def missing_codes(self) -> tuple[float, ...]:
        """The numbers of --missing-code. Raises UsageError."""
        return parse_missing_codes(self.missing_code) if self.missing_code else ()


@dataclass(frozen=True, kw_only=True)
class CovariateOptions(MissingCodeOptions):
    """The covariates beside the intercept."""

    covar: str | None = option(
        None,
        TABLE,
        group="traits and covariates",
        metavar="FILE",
        reads=the_file,
    )
    covar_name: tuple[str, ...] = option(
        (), f"columns of --covar: {NAMES}; default: all", group="traits and covariates", metavar="NAME"
    )
    cat_covar: tuple[str, ...] = option(
        (),
        "covariates whose numbers are categories; columns of words always are",
        group="traits and covariates",
        metavar="NAME",
    )

    def check(self) -> None:
        super().check()
        if (self.covar_name or self.cat_covar) and self.covar is None:
            raise UsageError(f"{'--covar-name' if self.covar_name else '--cat-covar'} needs --covar")

    @property
    def further_covar(self) -> tuple[str, ...]:
        """Columns of --covar that are read whatever --covar-name chooses."""
        return ()


@dataclass(frozen=True, kw_only=True)
class PhenotypeOptions(MissingCodeOptions):
    """Traits of a table."""

    pheno: str | None = option(
        None,
        f"{TABLE}; default: the .fam's trait",
        group="traits and covariates",
        metavar="FILE",
        reads=the_file,
    )
    pheno_name: tuple[str, ...] = option(
        (), f"columns of --pheno: {NAMES}; default: all", group="traits and covariates", metavar="NAME"
    )

    def check(self) -> None:
        super().check()
        if self.pheno_name and self.pheno is None:
            raise UsageError("--pheno-name needs --pheno")


@dataclass(frozen=True, kw_only=True)
class TraitOptions(PhenotypeOptions, CovariateOptions):
    """Traits of a table, or the one of the .fam, and covariates."""


@dataclass(frozen=True, kw_only=True)
class ManyTraitOptions(TraitOptions):
    """Traits of a table, up to 10^5."""

    pheno: str | None = option(
        None,
        TABLE,
        group="traits and covariates",
        metavar="FILE",
        reads=the_file,
    )


@dataclass(frozen=True, kw_only=True)
class RintOptions(Options):
    """The scale of traits, where their units do not matter."""

    rint: str = option(
        NONE,
        "rank-based inverse normal of each trait (Blom), of what the covariates leave of it with residual",
        group="traits and covariates",
        choices=(NONE, DIRECT, RESIDUAL),
        bare=DIRECT,
    )

    @property
    def transform(self) -> Transform:
        """What is done to traits over their analysed samples."""
        return Transform(self.rint)


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(RintOptions):
    """The scale of traits."""

    standardize: bool = flag("traits in standard deviations of their analysed samples", group="traits and covariates")

    @property
    def transform(self) -> Transform:
        """What is done to traits over their analysed samples."""
        return Transform(self.rint, self.standardize)


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """Brain images inside a mask: ``images`` and ``mask`` are given together."""

    images: str | None = option(
        None,
        "table with header FID IID PATH, one 3-D NIfTI a person, paths relative to the table; or one 4-D NIfTI",
        group="images",
        metavar="FILE",
        reads=the_file,
    )
    image_ids: str | None = option(
        None,
        "people (FID IID a line) of a 4-D image, in its order",
        group="images",
        metavar="FILE",
        reads=the_file,
    )
    mask: str | None = option(
        None, "3-D image, not zero where voxels are analysed", group="images", metavar="NIFTI", reads=the_file
    )

    def check(self) -> None:
        super().check()
        if (self.images is None) != (self.mask is None):
            raise UsageError("--images and --mask go together")
        if self.image_ids is not None and self.images is None:
            raise UsageError("--image-ids needs --images")


@dataclass(frozen=True, kw_only=True)
class VoxelOptions(ImageOptions):
    """A voxel matrix, or images to make it of."""

    voxels: str | None = option(
        None, "voxel matrix made by mpgls vgwas-extract", group="images", metavar="FILE", reads=the_file
    )


@dataclass(frozen=True, kw_only=True)
class KinshipOptions(Options):
    """A kinship of all samples."""

    grm: str | None = option(
        None,
        "kinship: mpgls .h5, GCTA prefix of .grm.bin, or GEMMA .cXX.txt with --grm-id",
        group="kinship",
        metavar="FILE",
        reads=kinship_files,
    )
    grm_id: str | None = option(
        None,
        "a .fam with the samples of a GEMMA kinship, in its order",
        group="kinship",
        metavar="FILE",
        reads=the_file,
    )
    center_grm: bool = flag(
        "centre the kinship over the analysed samples: h2 is then GEMMA's pve",
        group="kinship",
    )

    def check(self) -> None:
        super().check()
        if self.center_grm and self.grm is None:
            raise UsageError("--center-grm needs --grm: with --eigen, centring is an option of mpgls eigen")
        if self.grm_id is not None and self.grm is None:
            raise UsageError("--grm-id needs --grm")


@dataclass(frozen=True, kw_only=True)
class ScanKinshipOptions(KinshipOptions):
    """A kinship or its eigendecomposition, whole or without a chromosome at a time, for a scan."""

    eigen: str | None = option(
        None,
        "eigendecomposition made by mpgls eigen, instead of --grm",
        group="kinship",
        metavar="FILE",
        reads=the_file,
    )
    loco: bool = flag(
        "scan each chromosome with the kinship of all others (--grm made by mpgls kinship --loco)", group="kinship"
    )
    pcs: int = option(
        0,
        "K leading eigenvectors as covariates (0)",
        group="model",
        metavar="K",
        check=Check("not negative", lambda value: value >= 0),
    )

    def check(self) -> None:
        super().check()
        if self.grm is not None and self.eigen is not None:
            raise UsageError("give either --grm or --eigen: an eigendecomposition stands in place of the kinship")
        if self.grm is None and self.eigen is None:
            raise UsageError(
                f"{self.command} needs a kinship, --grm (mpgls kinship makes one), or --eigen in its place"
            )
        if self.loco and self.eigen is not None:
            raise UsageError(
                "--loco decomposes a kinship for each chromosome: give --grm, made with --loco, not --eigen"
            )
