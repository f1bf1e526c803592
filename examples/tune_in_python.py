"""Tune a logistic regression on real data, and watch it happen."""

import numpy as np
from sklearn.datasets import load_breast_cancer

import bilevel

X, y = load_breast_cancer(return_X_y=True)
X, y = (X - X.mean(axis=0)) / X.std(axis=0), 2.0 * y - 1
problem = bilevel.logistic_regression(X[::2], y[::2], X[1::2], y[1::2])


def show(record: bilevel.Record) -> None:
    """Print an iteration as it happens."""
    print(
        f"{record.k:3d}  λ = {record.lam[0]:7.4f}  g = {record.value:.6f}  {record.passes} passes"
    )


result = bilevel.minimize(problem, callback=show)
accuracy = np.mean(np.sign(X[1::2] @ result.x) == y[1::2])
print(f"{result.message} λ = {result.lam[0]:.4f}, held-out accuracy {accuracy:.1%}")
