"""Search without gradients: grid, random, and SMBO by Optuna.

Each is a generator that yields λ and is sent the loss there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import product
from typing import TypeAlias

import numpy as np

Proposer: TypeAlias = Generator[list[float], float, None]

#: The box of the paper.
LOW, HIGH = -12.0, 12.0


def grid(m: int, seed: int) -> Proposer:
    """A regular grid, the last λ (a regularisation constant) falling slowest.

    20 points for one hyperparameter, 10 in each direction for more.
    """
    axis = np.linspace(HIGH, LOW, 20 if m == 1 else 10)
    for lam in product(*[axis] * m):
        yield [float(v) for v in reversed(lam)]


def random(m: int, seed: int) -> Proposer:
    """Uniform in the box, without end (Bergstra and Bengio 2012)."""
    rng = np.random.default_rng(seed)
    while True:
        yield [float(v) for v in rng.uniform(LOW, HIGH, m)]


def tpe(m: int, seed: int) -> Proposer:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), Optuna's default."""
    import optuna

    yield from _optuna(optuna.samplers.TPESampler(seed=seed), m)


def gp(m: int, seed: int) -> Proposer:
    """A Gaussian process with log expected improvement, Optuna's GPSampler."""
    import optuna

    # Optuna calls the class experimental at each use.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=5)
    yield from _optuna(sampler, m)


def _optuna(sampler: object, m: int) -> Proposer:
    """Ask and tell; the first trial is λ = 0, as for the gradient methods."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)  # type: ignore[arg-type]
    study.enqueue_trial({f"lam{j}": 0.0 for j in range(m)})
    while True:
        trial = study.ask()
        value = yield [trial.suggest_float(f"lam{j}", LOW, HIGH) for j in range(m)]
        study.tell(trial, value)


#: The searches by the name that the figures use.
PROPOSERS: dict[str, Callable[[int, int], Proposer]] = {
    "grid": grid,
    "random": random,
    "TPE": tpe,
    "GP": gp,
}
