"""Options of commands whose large products run on GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from mpgls.errors import UsageError
from mpgls.run.option_groups import POSITIVE, PRECISIONS, PrecisionOptions
from mpgls.run.options import Options, option
from mpgls.run.plan import GIB

DEVICES = ("cpu", "gpu", "auto")
ONLY_ON_RANKS = {"ratio": "null", "model": "additive", "interaction": (), "joint_peak": None}
"""Options, by name, that GPUs know one value of."""


class DeviceWish(NamedTuple):
    """Of GPUs: whether they are ``tried``, whether they are ``needed``, and the ``limit`` of their bytes, if given."""

    tried: bool
    needed: bool
    limit: int | None


NO_CARDS = DeviceWish(False, False, None)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Where the large products run."""

    gpu_lacks: ClassVar[Sequence[str]] = tuple(ONLY_ON_RANKS)
    """Options of the command that GPUs know one value of."""

    device: str = option(
        "cpu",
        "gpu: one GPU a rank, through CuPy; auto: GPUs where every rank has one, otherwise cpu",
        group="machine",
        choices=DEVICES,
    )
    gpu_memory: float | None = option(
        None,
        "memory of its GPU that a rank may use; default: nine tenths of what is free",
        group="machine",
        metavar="GIB",
        check=POSITIVE,
        changes_results=False,
    )

    def check(self) -> None:
        super().check()
        if self.device == "cpu":
            if self.gpu_memory is not None:
                raise UsageError("--gpu-memory needs --device gpu or auto")
            return
        for name in self.gpu_lacks:
            if getattr(self, name, ONLY_ON_RANKS[name]) != ONLY_ON_RANKS[name]:
                raise UsageError(f"--{name.replace('_', '-')} is not there for GPUs: leave out either it or --device")

    @property
    def device_wish(self) -> DeviceWish:
        """What is asked of GPUs."""
        limit = None if self.gpu_memory is None else int(self.gpu_memory * GIB)
        return DeviceWish(self.device != "cpu", self.device == "gpu", limit)


@dataclass(frozen=True, kw_only=True)
class DevicePrecisionOptions(DeviceOptions, PrecisionOptions):
    """Where, and how, the large products are computed."""

    precision: str = option(
        "double",
        "mixed streams the large products and solves in single precision; exact, on a GPU, adds up whole numbers: as "
        "accurate as double, and the same bits in blocks of any size",
        group="model",
        choices=(*PRECISIONS, "exact"),
    )

    @property
    def dtype(self) -> type:
        """Element type of what ranks stream."""
        return np.float32 if self.precision == "mixed" else np.float64

    def check(self) -> None:
        super().check()
        if self.precision == "exact" and self.device == "cpu":
            raise UsageError("--precision exact needs --device gpu: on ranks alone give double")

    @property
    def device_wish(self) -> DeviceWish:
        """What is asked of GPUs: ``exact`` is nowhere else."""
        wish = super().device_wish
        return wish._replace(needed=wish.needed or self.precision == "exact")
