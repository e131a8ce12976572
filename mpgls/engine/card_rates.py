"""The rates of a GPU: what ``mpgls doctor --device gpu`` measures on each, as a cost reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpgls.errors import InputError
from mpgls.run.plan import GIB


@dataclass(frozen=True)
class CardRates:
    """What one GPU does in a second while all work.

    ``gemm`` and ``potrf`` flops of float64, ``half`` and ``int8`` operations of products in these, ``copy`` bytes from
    page-locked memory of the host, ``decode`` genotypes to int8, ``sums`` numbers of a float32 product centred and
    added up. ``memory``: bytes that may be used.
    """

    gemm: float
    potrf: float
    half: float
    int8: float
    copy: float
    decode: float
    sums: float
    memory: float

    @classmethod
    def of(cls, facts: Mapping[str, Any], source: str) -> CardRates | None:
        """From the JSON of ``mpgls doctor``; None where it was made without --device gpu. Raises InputError."""
        if "gpu" not in facts:
            return None
        found = []
        for name, unit in FACTS.items():
            value = facts.get(name)
            if not isinstance(value, (int, float)) or not value > 0:
                raise InputError(
                    f"{source} has {name} = {value!r} in place of a rate: make it anew with mpgls doctor --device gpu "
                    "--json"
                )
            found.append(value * unit)
        return cls(*found)


FACTS = {
    "gpu_gemm_gflops_double": 1e9,
    "gpu_potrf_gflops_double": 1e9,
    "gpu_gflops_half": 1e9,
    "gpu_gops_int8": 1e9,
    "gpu_copy_mb_per_s": 1e6,
    "gpu_decode_genotypes_per_s": 1.0,
    "gpu_sums_numbers_per_s": 1.0,
    "gpu_memory_gib": float(GIB),
}
"""Names in the JSON of ``mpgls doctor``, in the order of `CardRates`, and their units."""


def usable(rates: CardRates | None, limit: int | None, source: str) -> int:
    """Bytes of a GPU that a plan may use: ``limit`` of the user, or those measured. Raises InputError without rates."""
    if rates is None:
        raise InputError(f"no rates of a GPU in {source}: make them with mpgls doctor --device gpu --json")
    return int(rates.memory) if limit is None else limit
