"""L-BFGS by inner products on the host is the recursion of two loops, up to rounding."""

import numpy as np
import pytest

import bilevel
from bilevel.linalg import PairMemory, two_loops

NUMPY = bilevel.get_backend("numpy")


@pytest.mark.parametrize("most", [1, 3, 10, 25])
def test_it_is_the_recursion_of_two_loops(most: int) -> None:
    """Of a quadratic, where every seventh pair is no good and is not kept."""
    rng, n = np.random.default_rng(0), 40
    Q = rng.standard_normal((n, n))
    A, x = Q @ Q.T / n + np.eye(n), rng.standard_normal(n)
    memory, pairs, gamma = PairMemory(most, NUMPY), [], 1.0
    for k in range(40):
        s = rng.standard_normal(n)
        y = A @ s if k % 7 != 3 else -A @ s
        x = x + s
        grad = A @ x
        memory.take(NUMPY.scalars(*memory.written(s, y, grad)), 1e-300)
        if s @ y > 0:
            pairs = [*pairs, (s, y, 1 / (s @ y))][-most:]
            gamma = s @ y / (y @ y)
        expected = two_loops(pairs, gamma, -grad, NUMPY)
        found, slope = memory.direction(grad, float(grad @ grad))
        assert np.linalg.norm(found - expected) <= 1e-10 * np.linalg.norm(expected)
        assert slope == pytest.approx(expected @ grad, rel=1e-10)
        assert len(memory) == len(pairs)


def test_without_pairs_it_is_the_gradient() -> None:
    memory, grad = PairMemory(2, NUMPY), np.array([1.0, 2.0])
    memory.take(NUMPY.scalars(*memory.written(grad, -grad, grad)), 1e-300)
    assert len(memory) == 0
    found, slope = memory.direction(grad, 5.0)
    assert found.tolist() == [-1.0, -2.0]
    assert slope == -5.0
