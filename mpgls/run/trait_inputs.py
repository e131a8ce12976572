"""Opening many traits: rank 0 reads and groups them, every rank receives the groups."""

from __future__ import annotations

from mpgls.run.inputs import Study, in_families, read_covariates, say_tables
from mpgls.run.study_options import TraitOptions
from mpgls.run.world import World
from mpgls.stream.eigen_file import EigenFile
from mpgls.study.trait_groups import ModelSamples, TraitStudy, TraitUse, group_study
from mpgls.study.trait_matrix import open_traits


def open_trait_study(
    options: TraitOptions,
    study: Study,
    eigen: EigenFile | None,
    use: TraitUse,
    world: World,
    pheno: str | None = None,
) -> TraitStudy:
    """Open the traits of --pheno, or of ``pheno``, intersect the samples, and group for their ``use``. Collective.

    With ``eigen`` every group's samples must be those of the eigendecomposition, in its order. Raises what is wrong
    with the files on all ranks.
    """

    def read() -> TraitStudy:
        known, codes = study.fileset.samples.ids(), options.missing_codes
        model = None
        if eigen is not None:
            model = ModelSamples(in_families(eigen, known, world.log), str(eigen.path))
        elif study.kinship is not None:
            model = ModelSamples(study.kinship.ids)
        matrix = open_traits(pheno or str(options.pheno), options.pheno_name, known, codes)
        covariates = read_covariates(options, known)
        say_tables(world.log, matrix, *([covariates] if covariates is not None else []))
        return group_study(matrix, covariates, study.fileset.samples, study.samples, model, use, study.conditioning)

    made = world.on_root(read)
    for line in made.lines():
        world.log.info(line)
    for warning in made.cohort.covariates.warnings():
        world.log.warn(warning)
    if use.transform.changes:
        world.log.info(f"traits: {use.transform.text}, over the samples of each")
    return made
