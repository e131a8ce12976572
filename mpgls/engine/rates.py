"""A machine's rates as a cost model reads them: those that ``mpgls doctor --json`` wrote, in plain units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpgls.engine.card_rates import CardRates
from mpgls.errors import InputError, StorageError
from mpgls.study.regular import check_regular

GFLOPS = ("gemm", "potrf", "potrf_grid", "trsm")


@dataclass(frozen=True)
class PrecisionRates:
    """What one rank does in a second in one precision while all work.

    Flops; ``products`` numbers of columns multiplied with a few others and summed up squared; ``decode`` genotypes.
    """

    gemm: float
    potrf: float
    potrf_grid: float
    trsm: float
    products: float
    decode: float


@dataclass(frozen=True)
class Rates:
    """A machine's rates, as ``mpgls doctor`` measures them, in plain units a second.

    Of a rank: ``count`` genotypes, ``epilogue`` and ``scale`` numbers, bytes of new memory that it can ``touch``,
    ``rows`` of a table, ``send`` bytes, its flop of an ``eigen``decomposition that all ranks make, numbers of a
    ``tile`` of SNPs and traits. Of all nodes together: ``read`` and ``write`` bytes. ``sync`` seconds make a
    page safe, ``startup`` seconds pass before the first line of work. ``card``: of a rank's GPU, where it was measured.
    """

    double: PrecisionRates
    single: PrecisionRates
    count: float
    epilogue: float
    scale: float
    touch: float
    rows: float
    send: float
    read: float
    write: float
    sync: float
    startup: float
    eigen: float
    tile: float
    card: CardRates | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any], source: str) -> Rates:
        """From the JSON of ``mpgls doctor``. Raises InputError naming what is missing or not positive."""

        def rate(name: str, unit: float = 1.0, least: float = 1e-9) -> float:
            value = facts.get(name)
            if not isinstance(value, (int, float)) or not value >= least:
                found = "no" if value is None else f"an impossible {name} = {value!r} in place of a"
                raise InputError(f"{source} has {found} rate {name}: make it anew with mpgls doctor --json")
            return value * unit

        def precision(name: str) -> PrecisionRates:
            gemm, potrf, grid, trsm = (rate(f"{stem}_gflops_{name}", 1e9) for stem in GFLOPS)
            products, decode = rate(f"products_numbers_per_s_{name}"), rate(f"decode_genotypes_per_s_{name}")
            return PrecisionRates(gemm, potrf, grid, trsm, products, decode)

        return cls(
            precision("double"),
            precision("single"),
            rate("count_genotypes_per_s"),
            rate("epilogue_numbers_per_s"),
            rate("scale_numbers_per_s"),
            rate("touch_mb_per_s", 1e6),
            rate("table_rows_per_s"),
            rate("exchange_mb_per_s", 1e6, least=0.0),
            rate("read_mb_per_s", 1e6),
            rate("write_mb_per_s", 1e6),
            rate("sync_seconds", least=0.0),
            rate("startup_seconds", least=0.0),
            rate("eigen_gflops", 1e9),
            rate("tile_numbers_per_s"),
            CardRates.of(facts, source),
        )


def read_rates(path: str) -> dict[str, Any]:
    """The JSON of ``mpgls doctor``. Raises InputError, and StorageError when it cannot be read."""
    check_regular(path)
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
    except OSError as error:
        raise StorageError(f"cannot read the rates {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not the JSON of mpgls doctor: {error}") from None
    if not isinstance(facts, dict):
        raise InputError(f"{path} is not the JSON of mpgls doctor: it holds no object")
    return facts
