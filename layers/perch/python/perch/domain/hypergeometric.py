"""The normaliser of Fisher's noncentral hypergeometric distribution, at many odds ratios, whatever the counts.

X is hypergeometric: of `hits` hits among `trials` + `other_trials`, X fall among the `trials`. Tilted by an odds ratio
θ it has f(x; θ) = C(n1, x)·C(n0, k-x)·θˣ / Σ, and f(x; θ)/f(x; 1) = θˣ / E[θ^X]: what is needed is log E[θ^X].

The sum starts beside its largest term and ends where terms no longer matter (below 1e-13 of it; they are log-concave,
so those that follow matter less). When the tilted X spreads wide, d times the sum of every d-th term is the same: X is
a sum of independent coin tosses (its generating function has real roots only), so its characteristic function obeys
|φ(t)| <= exp(-2·Var·sin²(t/2)), and the multiples of d hold 1/d of the probability up to the mean of φ(2πj/d) over
j = 1 … d-1. d is the largest power of two for which those are below e⁻³⁴, which is 1 for small counts. So some 20 to 45
terms suffice, however many requests there were, with an error far below that of floating-point logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, lgamma, log, pi, sin, sqrt

TAIL = 1e-13
ALIAS = 34.0  # e to the minus this is what a stride may cost; 30 would do, the rest covers the estimate of the variance


def log_means(log_odds: Sequence[float], trials: int, other_trials: int, hits: int) -> list[float]:
    """Log of E[θ^X] for every log θ; exact but for rounding.

    Args:
        log_odds: natural logarithms of the odds ratios.
        trials: requests of the arm whose hits are X.
        other_trials: requests of the other arm.
        hits: of both arms, at most all requests.
    """
    low, high = max(0, hits - other_trials), min(trials, hits)
    rest = other_trials - hits
    whole = lgamma(trials + other_trials + 1) - lgamma(hits + 1) - lgamma(trials + rest + 1)
    whole -= lgamma(trials + 1) + lgamma(other_trials + 1)
    terms: dict[int, float] = {}  # log of 1 / (x!·(n1-x)!·(k-x)!·(n0-k+x)!), shared by all odds ratios
    means = []
    for tilt in log_odds:
        if not tilt:
            means.append(0.0)
            continue
        top = min(max(_mode(exp(tilt), trials, other_trials, hits), low), high)
        stride = _stride(1 / (1 / (top + 1) + 1 / (trials - top + 1) + 1 / (hits - top + 1) + 1 / (rest + top + 1)))
        top -= (top - low) % stride  # one lattice for all odds ratios, so that they share terms
        peak = total = 0.0
        for xs in (range(top, high + 1, stride), range(top - stride, low - 1, -stride)):
            for x in xs:
                term = terms.get(x)
                if term is None:
                    term = -lgamma(x + 1) - lgamma(trials - x + 1) - lgamma(hits - x + 1) - lgamma(rest + x + 1)
                    terms[x] = term
                if not total:
                    peak = term + x * tilt
                part = exp(term + x * tilt - peak)
                total += part
                if part < TAIL * total:
                    break
        means.append(peak + log(total * stride) - whole)
    return means


def _mode(odds: float, trials: int, other_trials: int, hits: int) -> int:
    """Where C(n1, x)·C(n0, k-x)·θˣ is largest: the next term is no larger than this one (a quadratic in x)."""
    a = odds - 1
    b = (trials + hits + 2) * odds + other_trials - hits
    c = (trials + 1) * (hits + 1) * odds
    return int(2 * c / (b + sqrt(max(b * b - 4 * a * c, 0.0))))


def _stride(variance: float) -> int:
    stride = 1
    while 2 * variance * sin(pi / (2 * stride)) ** 2 >= ALIAS:
        stride *= 2
    return stride
