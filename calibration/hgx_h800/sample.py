"""Laplace's error bars of HGX H800 against samples of the same posterior.

The ensemble sampler of Goodman & Weare (Comm. App. Math. Comp. Sci. 5, 2010) moves its
walkers through the posterior that `run.py` maximizes: the same likelihood, priors,
discrepancy and rows. Laplace's approximation holds where a parameter's standard error
and mean agree, and fails where they don't: it is too narrow for how fast and from which
size on memory delivers, whose posterior is skewed (a kernel is bound by memory or by
compute, and Laplace looks at one side).

    pip install 'cmxjax[sampling]'
    python calibration/hgx_h800/sample.py
"""

from pathlib import Path

import emcee  # pyright: ignore[reportMissingImports]
import numpy as np
from rich.console import Console

import cmxjax as cmx
from cmxjax.calibrate.calibrate import data_of
from cmxjax.calibrate.fit import objective
from cmxjax.report.tables import make_table

SYSTEM = "hgx-h800"
OUT = Path(__file__).parent / "results" / "sampling.txt"
WALKERS, STEPS, BURN_IN = 32, 2000, 300
WIDTH_OFF, SHIFT_OFF = 0.20, 0.5
"""A standard error is off by more than this share, a mean by this many of them."""


def sample(result, seed: int = 0) -> tuple[np.ndarray, float]:
    """Draws of the posterior, (draw, parameter), and the longest correlation in steps."""
    setup = result.setup
    model = setup.predictor.model(setup.parameters)
    data = data_of(setup, result.discrepancy)
    random = np.random.default_rng(seed)
    start = random.multivariate_normal(result.theta, result.covariance, WALKERS)
    sampler = emcee.EnsembleSampler(
        WALKERS,
        len(result.theta),
        lambda theta: -objective(theta, model(theta)[0], data),
        vectorize=True,
    )
    sampler.random_state = np.random.RandomState(seed).get_state()  # noqa: NPY002
    sampler.run_mcmc(start, STEPS)
    correlation = sampler.get_autocorr_time(discard=BURN_IN, quiet=True)
    return sampler.get_chain(discard=BURN_IN, flat=True), float(np.max(correlation))


def compared(result, draws: np.ndarray):
    """A table of each parameter: its standard error and mean, by both ways."""
    columns = (
        "parameter",
        "sigma, Laplace",
        "sigma, sampled",
        "mean off",
        "skewness",
        "",
    )
    table = make_table(f"{SYSTEM}: Laplace's approximation and samples", *columns)
    laplace = np.sqrt(np.diag(result.covariance))
    mean, sampled = draws.mean(axis=0), draws.std(axis=0)
    off = (mean - result.theta) / sampled
    skew = (((draws - mean) / sampled) ** 3).mean(axis=0)
    for k, p in enumerate(result.setup.parameters):
        wrong = abs(laplace[k] / sampled[k] - 1.0) > WIDTH_OFF or abs(off[k]) > SHIFT_OFF
        numbers = (f"{v:.3f}" for v in (laplace[k], sampled[k]))
        shape = (f"{off[k]:+.2f} sigma", f"{skew[k]:+.2f}")
        table.add_row(p.name, *numbers, *shape, "Laplace fails" if wrong else "agrees")
    return table


def main() -> None:
    cmx.setup()
    result = cmx.fit(SYSTEM).result
    draws, correlation = sample(result)
    text = (
        f"{len(draws)} draws of {WALKERS} walkers; correlated over {correlation:.0f} of"
        f" {STEPS} steps. Widths within {WIDTH_OFF:.0%} and means within {SHIFT_OFF}"
        " standard errors agree."
    )
    with OUT.open("w", encoding="utf-8") as file:
        for console in (Console(), Console(file=file, width=110)):
            console.print(compared(result, draws), text)


if __name__ == "__main__":
    main()
