"""REML over h2 where every point costs a factorisation: a coarse search in float32, the finish in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpgls.engine.covariance import PointwiseCovariance
from mpgls.model import reml
from mpgls.run.world import World


def maximise_reml(V: PointwiseCovariance, F: Any, world: World) -> reml.RemlResult:
    """The h2 that maximises the REML likelihood of F = [X_L | y], to ``V.tolerance``; NaN where l is flat. Collective.

    Raises Stopped, on all ranks, when a signal asked for it between two evaluations; NumericalError, see
    `reml.maximise_reml`.
    """
    start = V.start(F)
    if start.is_flat():
        return start.unidentified()

    def points(name: str, dtype: type) -> Callable[[float], reml.RemlPoint]:
        def point(h2: float) -> reml.RemlPoint:
            world.raise_if_stopped()
            found = V.point(h2, F, dtype) if h2 > 0.0 else start.point()
            world.log.info(f"  REML {name}: h2 {h2:.8f}  log-likelihood {found.log_likelihood:.6f}")
            return found

        return point

    with world.phase("REML, search"):
        return reml.maximise_reml(
            points("single", np.float32), points("double", np.float64), n=V.n, tolerance=V.tolerance
        )
