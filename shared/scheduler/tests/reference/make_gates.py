"""Reference values for the statistics of gates, from SciPy and statsmodels.

    python -m venv venv && venv/bin/pip install scipy==1.17.1 statsmodels==0.15.0
    venv/bin/python make_gates.py > gates.json

- exact McNemar: two-sided from `statsmodels.stats.contingency_tables.mcnemar(exact=True)`,
  one-sided from `scipy.stats.binomtest(alternative="greater")`.
- Tango's score test: its restricted likelihood is maximised numerically here (not by Tango's closed
  form), and the bound is found with `scipy.optimize.brentq`.
- paired bootstrap: quantiles of `scipy.stats.bootstrap(paired=True, method="percentile")` with many
  resamples; ours draws other numbers, so it is held within their spread.
"""

import json
import sys

import numpy as np
import scipy
import statsmodels
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar


def exact(wins, losses):
    two = mcnemar([[0, wins], [losses, 0]], exact=True).pvalue if wins + losses else 1.0
    one = stats.binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue if wins + losses else 1.0
    return {"wins": wins, "losses": losses, "one_sided": float(one), "two_sided": float(two)}


def score(n, b, c, delta):
    """Score statistic at a difference, with the losing share that the likelihood prefers there."""
    low, high = max(0.0, -delta), (1.0 - delta) / 2.0

    def negative(q):
        p, rest = q + delta, 1.0 - 2.0 * q - delta
        tiny = 1e-300
        return -(
            b * np.log(max(p, tiny)) + c * np.log(max(q, tiny)) + (n - b - c) * np.log(max(rest, tiny))
        )

    best = optimize.minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-13})
    # A maximum at an end is only approached by the bounded search.
    q = min([best.x, low, high], key=negative)
    variance = n * (2.0 * q + delta - delta * delta)
    return (b - c - n * delta) / np.sqrt(variance)


def tango(n, b, c, margin, confidence):
    p = float(stats.norm.sf(score(n, b, c, -margin)))
    z = stats.norm.ppf(confidence)
    bound = float(optimize.brentq(lambda d: score(n, b, c, d) - z, -1 + 1e-9, (b - c) / n - 1e-12))
    return {
        "samples": n, "wins": b, "losses": c, "margin": margin, "confidence": confidence,
        "p": p, "bound": bound,
    }


def macro_f1(labels, predicted, classes):
    total, occurring = 0.0, 0
    for one in range(classes):
        right = np.sum((labels == one) & (predicted == one))
        both = np.sum(labels == one) + np.sum(predicted == one)
        if both:
            total += 2.0 * right / both
            occurring += 1
    return total / max(occurring, 1)


def log_loss(truth):
    return float(np.mean(-np.log(np.maximum(truth, 1e-15))))


def bootstraps():
    rng = np.random.default_rng(7)
    n, classes = 400, 3
    labels = rng.integers(0, classes, n)

    def model(skill):
        wrong = (labels + rng.integers(1, classes, n)) % classes
        right = rng.random(n) < skill
        truth = np.where(right, rng.uniform(0.4, 1.0, n), rng.uniform(0.01, 0.33, n)).astype(np.float32)
        return np.where(right, labels, wrong), truth

    (ours, our_truth), (theirs, their_truth) = model(0.85), model(0.80)
    out = {
        "labels": labels.tolist(),
        "candidate": {"predicted": ours.tolist(), "truth": [float(x) for x in our_truth]},
        "champion": {"predicted": theirs.tolist(), "truth": [float(x) for x in their_truth]},
        "cases": [],
    }

    def f1(index):
        index = index.astype(int)
        return macro_f1(labels[index], ours[index], classes) - macro_f1(labels[index], theirs[index], classes)

    def loss(index):
        index = index.astype(int)
        return log_loss(their_truth[index]) - log_loss(our_truth[index])

    for metric, statistic in (("test/macro_f1", f1), ("test/loss", loss)):
        for confidence in (0.9, 0.95, 0.99):
            found = stats.bootstrap(
                (np.arange(n),), statistic, vectorized=False, n_resamples=20000, method="percentile",
                confidence_level=confidence, alternative="greater", rng=np.random.default_rng(1),
            )
            out["cases"].append({
                "metric": metric, "confidence": confidence,
                "observed": float(statistic(np.arange(n))),
                "bound": float(found.confidence_interval.low),
                "error": float(found.standard_error),
            })
    return out


mcnemars = [exact(*case) for case in (
    (0, 0), (1, 0), (0, 1), (5, 0), (4, 1), (12, 8), (14, 6), (15, 5), (8, 12), (10, 10), (60, 40),
    (523, 477), (5200, 4800), (1, 30), (3000, 1),
)]
tangos = [tango(*case) for case in (
    (44, 0, 1, 0.1, 0.95), (44, 1, 0, 0.1, 0.95), (100, 5, 4, 0.05, 0.95), (100, 5, 4, 0.05, 0.9975),
    (500, 12, 30, 0.01, 0.95), (500, 30, 12, 0.01, 0.95), (10000, 210, 190, 0.01, 0.99),
    (30, 3, 3, 0.2, 0.9), (1000, 40, 0, 0.02, 0.975), (1000, 0, 40, 0.02, 0.975),
)]
json.dump(
    {
        "made_with": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "mcnemar": mcnemars, "tango": tangos, "bootstrap": bootstraps(),
    },
    sys.stdout, indent=1,
)
