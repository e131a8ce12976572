"""Options of ``mpgls plan`` for runs on GPUs that are not there."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.run.device_options import DeviceWish
from mpgls.run.option_groups import POSITIVE
from mpgls.run.options import Options, at_least, option
from mpgls.run.plan import GIB


@dataclass(frozen=True, kw_only=True)
class PlannedDeviceOptions(Options):
    """Where the large products of the planned run are made."""

    device: str = option("cpu", "gpu: --ranks GPUs, one a rank", group="machine", choices=("cpu", "gpu"))
    gpu_memory: float | None = option(
        None, "memory of a GPU; default: that of the rates", group="machine", metavar="GIB", check=POSITIVE
    )
    gpus_per_node: int | None = option(
        None, "GPUs, and so ranks, of a node; default: all on one", group="machine", metavar="G", check=at_least(1)
    )

    def check(self) -> None:
        super().check()
        for name in ("gpu_memory", "gpus_per_node"):
            if self.device == "cpu" and getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} needs --device gpu")
        ranks_per_node = getattr(self, "ranks_per_node", None)
        if None not in (self.gpus_per_node, ranks_per_node) and self.gpus_per_node != ranks_per_node:
            raise UsageError("each rank has a GPU of its own: leave out --ranks-per-node beside --gpus-per-node")

    @property
    def device_wish(self) -> DeviceWish:
        """What is asked of GPUs."""
        limit = None if self.gpu_memory is None else int(self.gpu_memory * GIB)
        return DeviceWish(self.device == "gpu", self.device == "gpu", limit)
