"""scikit-learn estimators that choose their own regularisation by the hypergradient.

They need scikit-learn: ``pip install 'bilevel[sklearn]'``.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("sklearn") is None:
    raise ImportError(
        "bilevel.estimators needs scikit-learn, which is not installed: "
        "`pip install 'bilevel[sklearn]'`."
    )

from .kernel_ridge import BilevelKernelRidge
from .logistic_regression import BilevelLogisticRegression
from .ridge import BilevelRidge
from .search import HyperparameterSearchCV

__all__ = [
    "BilevelKernelRidge",
    "BilevelLogisticRegression",
    "BilevelRidge",
    "HyperparameterSearchCV",
]
