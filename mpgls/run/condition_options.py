"""Options that say which SNPs the model has beside the covariates."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.run.options import Options, option, the_file


@dataclass(frozen=True, kw_only=True)
class ConditionOptions(Options):
    """SNPs that every other SNP is tested conditioned on."""

    condition: tuple[str, ...] = option(
        (), "test every SNP with these SNPs (IDs) in the model beside it", group="model", metavar="ID[,ID...]"
    )
    condition_list: str | None = option(
        None,
        "the same of SNPs in a file (IDs separated by white space or commas)",
        group="model",
        metavar="FILE",
        reads=the_file,
    )

    @property
    def conditions(self) -> bool:
        """Whether there are any."""
        return bool(self.condition) or self.condition_list is not None
