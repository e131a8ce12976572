"""Opening many traits: rank 0 reads and groups them, every rank receives the groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpgls.commands.common.inputs import Study, StudyOptions
from mpgls.mpi import on_root
from mpgls.study.tables import read_table
from mpgls.study.trait_groups import ModelSamples, TraitStudy, group_study
from mpgls.study.trait_matrix import open_traits

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.log import Log
    from mpgls.stream.eigen_file import EigenFile


def open_trait_study(
    options: StudyOptions, study: Study, eigen: EigenFile | None, policy: str, comm: MPI.Comm, log: Log
) -> TraitStudy:
    """Open the traits, intersect the samples, and group. Collective; raises what is wrong on all ranks.

    With ``eigen`` every group's samples must be those of the eigendecomposition, in its order.
    """
    assert options.pheno is not None
    pheno = options.pheno

    def read() -> TraitStudy:
        model = None
        if eigen is not None:
            model = ModelSamples(eigen.ids, str(eigen.path))
        elif study.kinship is not None:
            model = ModelSamples(study.kinship.ids)
        matrix = open_traits(pheno, options.pheno_name)
        covariates = read_table(options.covar, options.covar_name) if options.covar else None
        return group_study(matrix, covariates, study.fileset.samples, study.samples, model, policy)

    made = on_root(comm, read)
    for line in made.lines():
        log.info(line)
    return made
