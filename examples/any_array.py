"""The same search on other array libraries, by changing the arrays alone.

All that are known, or those that the command line names; what is not usable here is left out.
"""

import sys

import numpy as np

import bilevel

rng = np.random.default_rng(0)
X = rng.standard_normal((200, 5))
y = np.where(X @ rng.standard_normal(5) + rng.standard_normal(200) > 0, 1.0, -1.0)

for name in sys.argv[1:] or bilevel.backend_names():
    try:
        backend = bilevel.get_backend(name)
        arrays = [backend.asarray(a) for a in (X[::2], y[::2], X[1::2], y[1::2])]
    except bilevel.BackendUnavailableError as error:
        print(f"{name}: left out. {error}")
        continue
    result = bilevel.minimize(bilevel.logistic_regression(*arrays), max_iter=10)
    lam = backend.to_numpy(result.lam)
    print(f"{name}: λ = {lam[0]:.8f} after {result.nit} iterations, {result.passes} passes")
