"""Restricted maximum likelihood for h2 with few factorisations.

Each evaluation of the profile REML log-likelihood l(h2) costs one Cholesky factorisation of V = h2 Phi + (1-h2) I.
``LikelihoodCurve`` models l from all evaluations so far; the search evaluates where that model is largest, in float32
until the optimum is roughly known and then in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.gls import NullSums, profile_reml
from mpgls.model.reml_curve import LOCAL, UPPER, LikelihoodCurve, RemlPoint, logit

SPREAD = (0.2, 0.5, 0.8)
"""First coarse evaluations, beside the free one at h2 = 0."""

CAUTIOUS = 0.97
"""Highest h2 to propose while nothing above the spread points is known."""

SNAP = 1.0 - 1e-5
"""From here on h2 is the upper end."""

SINGLE_LIMIT = 0.999
"""Above it float32 is not asked: where Phi is singular, its errors grow as 1/(1-h2)."""

TOLERANCE = 2e-9
"""Of h2: effects and p values are then good to 1e-8."""

BESIDE = (5e-4, 5e-3)
"""How near and how far the float64 evaluations on both sides of the optimum are, in units of min(h2 + 0.01, 1 - h2)."""

SYMMETRIC = 1e-4
"""How much their distances may differ, in the same units."""

FAILED = RemlPoint(float("-inf"))
"""What an evaluation returns when V is not positive definite in its precision."""


@dataclass(frozen=True)
class RemlResult:
    """REML estimate of h2 and its standard error: (-l'')^-1/2, NaN where l is not concave and at the upper end.

    ``log_likelihood`` is the float64 value at ``h2``; ``evaluations_*`` count the factorisations in float32 and
    float64 (the evaluation at h2 = 0 needs none and is not counted). The last float64 evaluation was at ``h2``
    unless h2 = 0. ``at_boundary``: h2 is 0 or the upper end. Where l is flat, h2 is not ``identified``, and NaN.
    """

    h2: float
    h2_se: float
    log_likelihood: float
    evaluations_single: int
    evaluations_double: int
    at_boundary: bool
    identified: bool = True


def reml_point(sums: NullSums, slope_gram: np.ndarray, curvature_gram: np.ndarray) -> RemlPoint:
    """The evaluation for ``maximise_reml`` from the whitened sums at one h2.

    With U = V^-1 [X_L | y] and D = Phi - I, ``slope_gram`` (q+1, q+1) is G = U'DU and ``curvature_gram`` H =
    U'DV^-1DU; away from h2 = 0 they are `derivative_grams`. By the envelope theorem only V depends on h2: with beta
    the GLS estimate and c = [-beta; 1],

        rss'  = -c'Gc,                                log|S_TL|'  = -tr(S_TL^-1 G_LL)
        rss'' = 2 (c'Hc - c'G_L S_TL^-1 G_L'c),       log|S_TL|'' = 2 tr(S_TL^-1 H_LL) - tr((S_TL^-1 G_LL)^2)

    and rho = -1/2 [(n-q) log rss + log|S_TL|] but for constants. Raises NumericalError as ``gls.profile_reml`` does.
    """
    log_likelihood = profile_reml(sums)
    q, df = len(sums.b_T), sums.n - len(sums.b_T)
    beta = np.linalg.solve(sums.S_TL, sums.b_T)
    contrast = np.append(-beta, 1.0)
    G, H = (np.linalg.solve(sums.S_TL, gram[:q, :q]) for gram in (slope_gram, curvature_gram))
    half = slope_gram[:q] @ contrast
    rss = sums.yy - sums.b_T @ beta
    first = contrast @ slope_gram @ contrast / rss
    second = (contrast @ curvature_gram @ contrast - half @ np.linalg.solve(sums.S_TL, half)) / rss
    slope = 0.5 * (df * first + np.trace(G))
    curvature = -0.5 * (df * (2.0 * second - first**2) + 2.0 * np.trace(H) - np.trace(G @ G))
    return RemlPoint(log_likelihood, float(sums.log_det), float(slope), float(curvature))


def derivative_grams(
    h2: float, once: np.ndarray, twice: np.ndarray, thrice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """G and H of `reml_point` from F'V^-1F, F'V^-2F and F'V^-3F of F = [X_L | y], without a product with Phi.

    h2 > 0, since D = Phi - I = (V - I)/h2.
    """
    return (once - twice) / h2, (once - 2.0 * twice + thrice) / h2**2


def maximise_reml(
    coarse: Callable[[float], RemlPoint],
    fine: Callable[[float], RemlPoint],
    *,
    n: int,
    log_det_slope_at_zero: float = 0.0,
    tolerance: float = TOLERANCE,
    coarse_noise: float = 3e-3,
    coarse_step: float = 0.03,
    max_coarse: int = 8,
    max_fine: int = 10,
) -> RemlResult:
    """Maximise the profile REML log-likelihood over h2 in [0, 1 - 1e-6].

    ``coarse(h2)`` is a float32 evaluation, ``fine(h2)`` the float64 one; both return a RemlPoint (``FAILED`` when
    Cholesky fails). ``fine(0.0)`` is called once at the start: V = I there, so it needs no factorisation. ``n`` is
    the number of samples; ``log_det_slope_at_zero`` = trace(Phi) - n, 0 for Phi scaled to mean diagonal 1.
    ``coarse_noise`` is the absolute error to expect of a coarse log|V|. Coarse evaluations go on until the
    proposed step is below ``coarse_step``, fine ones until it is below ``tolerance`` (in h2). A search that has
    not settled after ``max_fine`` fine evaluations ends with Brent's method on the likelihoods themselves (h2 then
    to about 1e-6). Of two maxima whose likelihoods differ by less than 10 ``coarse_noise`` either may be returned.

    The proposals follow from the returned numbers alone: on several ranks, return the same bits on each.
    Raises NumericalError when V is not positive definite near the optimum.
    """
    search = _Search(coarse, fine, LikelihoodCurve(n, log_det_slope_at_zero, coarse_noise))
    search.evaluate_fine(0.0)
    for h2 in SPREAD:
        search.evaluate_coarse(h2)
    while search.singles < max_coarse:
        proposal, _ = search.propose()
        if proposal == 0.0 or proposal >= search.coarse_limit or search.coarse_gap(proposal) < coarse_step:
            break
        search.evaluate_coarse(proposal)
    while search.doubles < max_fine:
        proposal, settled = search.propose()
        if settled and abs(proposal - search.last) <= tolerance:
            rival = search.rival()
            if rival is not None and rival > search.last:
                break
            if rival is not None:
                search.lower_limit(rival)
                continue
            if search.is_below_failure(tolerance):
                search.raise_limit()
                continue
            if search.last == UPPER and not search.rises_to_upper_end():
                continue
            proposal = search.beside(search.last)
            if proposal == search.last:
                return search.result()
        if search.creeps_to_upper_end():
            search.evaluate_fine(UPPER)
            if search.best_fine() == UPPER and search.rises_to_upper_end():
                return search.result()
            break
        if search.singles < max_coarse and search.is_unexplored(proposal):
            search.evaluate_coarse(proposal)
        else:
            search.evaluate_fine(search.beside(proposal) if settled else proposal)
    return search.finish_by_values()


def standard_error(information: float) -> float:
    """(-l'')^-1/2 from the information -l''; NaN where l is not concave."""
    return float(1.0 / np.sqrt(information)) if information > 0 else float("nan")


@dataclass
class _Search:
    """The evaluations made so far, and what they forbid."""

    coarse: Callable[[float], RemlPoint]
    fine: Callable[[float], RemlPoint]
    curve: LikelihoodCurve
    singles: int = 0
    doubles: int = 0
    last: float = 0.0  # where the last float64 evaluation was
    coarse_limit: float = SINGLE_LIMIT  # float32 is asked below this h2 only; lowered where it fails
    limit: float = UPPER  # the highest h2 that may be proposed
    fine_values: dict[float, float] = field(default_factory=dict)
    coarse_values: dict[float, float] = field(default_factory=dict)
    failed_at: float = 1.0  # the lowest h2 at which float64 failed

    def evaluate_coarse(self, h2: float) -> None:
        if h2 >= self.coarse_limit:
            return
        self.singles += 1
        point = self.coarse(h2)
        if np.isfinite(point.log_likelihood):
            self.coarse_values[h2] = point.log_likelihood
            self.curve.add(h2, point, exact=False)
        else:
            self.coarse_limit = h2

    def evaluate_fine(self, h2: float) -> None:
        """Evaluate in float64; where V is not positive definite, go half of the way back."""
        self.doubles += h2 > 0.0
        point = self.fine(h2)
        if np.isfinite(point.log_likelihood):
            self.last = h2
            self.fine_values[h2] = point.log_likelihood
            self.curve.add(h2, point, exact=True)
            return
        self.failed_at = h2
        below = max((x for x in [*self.coarse_values, *self.fine_values] if x < h2), default=0.0)
        self.limit = 0.5 * (below + h2)
        if h2 - below < 1e-3 * (1.0 - h2) + 1e-9:
            self.refuse()

    def refuse(self) -> None:
        raise NumericalError(
            f"the kinship is not positive semidefinite: at h2 = {self.failed_at:.6g}, near the REML optimum, "
            "h2 Phi + (1-h2) I has no Cholesky factor"
        )

    def best_fine(self) -> float:
        """The h2 of the largest float64 likelihood."""
        return max(self.fine_values, key=lambda h2: self.fine_values[h2])

    def creeps_to_upper_end(self) -> bool:
        """Whether the search, unsettled, should look at the upper end itself: l may be flat up to there."""
        return self.doubles >= 4 and self.last > 0.99 and self.limit == UPPER and UPPER not in self.fine_values

    def rises_to_upper_end(self) -> bool:
        """Whether l is larger at the upper end, the last evaluation, than just below; otherwise stay below it."""
        self.evaluate_fine(SNAP)
        if self.fine_values.get(SNAP, -np.inf) < self.fine_values[UPPER]:
            self.evaluate_fine(UPPER)  # the caller keeps the last factor
            return True
        self.limit = min(self.limit, SNAP)
        return False

    def rival(self) -> float | None:
        """Where a float64, or a far float32, evaluation is clearly better than the last float64 one."""
        here = logit(self.last)
        values = {h2: v for h2, v in self.coarse_values.items() if abs(logit(h2) - here) > LOCAL}
        values.update(self.fine_values)
        best = max(values, key=lambda h2: values[h2])
        return best if values[best] - values[self.last] > 10.0 * self.curve.coarse_noise else None

    def lower_limit(self, rival: float) -> None:
        """The model rose towards ``last``, the likelihood does not: stay nearer to the rival."""
        self.limit = 0.5 * (rival + self.last)

    def is_below_failure(self, tolerance: float) -> bool:
        """Whether the search ended only because V is not positive definite above."""
        return self.failed_at < 1.0 and self.limit < self.failed_at and self.last >= self.limit - tolerance

    def raise_limit(self) -> None:
        if self.failed_at - self.last < 1e-3 * (1.0 - self.failed_at) + 1e-9:
            self.refuse()
        self.limit = 0.5 * (self.last + self.failed_at)

    def propose(self) -> tuple[float, bool]:
        """The surrogate's choice; its first step above the spread points is cautious, its last snaps to the end."""
        seen = max([*self.coarse_values, *self.fine_values])
        limit = min(self.limit, UPPER, CAUTIOUS if seen <= max(SPREAD) else UPPER)
        proposal, settled = self.curve.argmax(limit, near=self.last if self.doubles and self.last <= limit else None)
        if self.limit == UPPER and proposal > SNAP:
            return UPPER, True
        return proposal, settled

    def beside(self, h2: float) -> float:
        """Where a float64 evaluation is lacking for psi'' at ``h2``: as far from it as the nearest one, on the other
        side; ``h2`` itself where there are two such. Over these distances rounding is small, and odd errors cancel.
        """
        if not 0.0 < h2 < min(SNAP, self.limit):
            return h2
        unit = min(h2 + 0.01, 1.0 - h2)
        gaps = [x - h2 for x in self.fine_values if x > 0.0 and BESIDE[0] * unit <= abs(x - h2) <= BESIDE[1] * unit]
        nearest = min(gaps, key=abs, default=0.0)
        if nearest and min(abs(gap + nearest) for gap in gaps) <= SYMMETRIC * unit:
            return h2
        other = h2 - nearest if nearest else h2 - np.sqrt(BESIDE[0] * BESIDE[1]) * unit
        return other if other > 0.0 else h2

    def coarse_gap(self, h2: float) -> float:
        return min((abs(h2 - x) for x in self.coarse_values), default=np.inf)

    def is_unexplored(self, h2: float) -> bool:
        """Whether h2 is worth a float32 look before a float64 one: far from every evaluation."""
        if not 0.0 < h2 < self.coarse_limit:
            return False
        at = np.array([x for x in [*self.coarse_values, *self.fine_values] if x > 0])
        return bool(np.all(np.abs(logit(at) - logit(h2)) > LOCAL))

    def finish_by_values(self) -> RemlResult:
        """Brent's method on float64 likelihoods around the best one."""
        from scipy.optimize import minimize_scalar

        if self.coarse_values:
            rough = max(self.coarse_values, key=lambda h2: self.coarse_values[h2])
            if self.coarse_values[rough] > self.fine_values[self.best_fine()]:
                self.evaluate_fine(rough)
        best, seen = self.best_fine(), [*self.coarse_values, *self.fine_values]
        low = max((x for x in seen if x < best), default=0.0)
        high = min((x for x in seen if x > best), default=max(self.limit, best))

        def loss(h2: float) -> float:
            self.evaluate_fine(float(h2))
            return -self.fine_values.get(float(h2), -np.inf)

        options = {"xatol": 1e-7, "maxiter": 40}
        minimize_scalar(loss, bounds=(low, high), method="bounded", options=options)
        best = self.best_fine()
        if best > self.failed_at - 1e-2 * (1.0 - self.failed_at):
            self.refuse()
        if best != self.last:
            self.evaluate_fine(best)
        self.curve.argmax(self.limit, near=best)  # refits the curve for the standard error
        return self.result()

    def result(self) -> RemlResult:
        return RemlResult(
            h2=self.last,
            h2_se=float("nan") if self.last >= UPPER else standard_error(self.curve.information(self.last)),
            log_likelihood=self.fine_values[self.last],
            evaluations_single=self.singles,
            evaluations_double=self.doubles,
            at_boundary=self.last == 0.0 or self.last >= UPPER,
        )
