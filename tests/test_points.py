"""Points of a linear model and of the held-out loss: derivatives, counters, constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bilevel import get_backend
from bilevel.design import Standardized, WithIntercept, as_design
from bilevel.inner import linear_model
from bilevel.losses import Logistic
from bilevel.outer import held_out

N, P = 20, 6
GROUPS = {"one": None, "groups": np.array([0, 1, 0, 2, 2, 1]), "each": "each"}
M = {"one": 1, "groups": 3, "each": P}


@pytest.fixture(params=list(GROUPS))
def groups(request: pytest.FixtureRequest) -> str:
    return request.param


def numbers(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, P)), np.where(rng.random(N) < 0.4, -1.0, 1.0)


def reference(x: Any, lam: Any, groups: Any) -> Any:
    """h by the formula, on the host."""
    X, y = numbers()
    weights = np.exp(lam)[_labels(groups)]
    return np.sum(np.logaddexp(0, -y * (X @ x))) + 0.5 * np.sum(weights * x * x)


def _labels(groups: Any) -> Any:
    if groups is None:
        return np.zeros(P, dtype=int)
    return np.arange(P) if isinstance(groups, str) else groups


def hessian(x: Any, lam: Any, groups: Any) -> Any:
    X, y = numbers()
    s = 1 / (1 + np.exp(y * (X @ x)))
    return (X.T * (s * (1 - s))) @ X + np.diag(np.exp(lam)[_labels(groups)])


def cross(x: Any, lam: Any, groups: Any) -> Any:
    """∂²_{xλ} h, (p, m)."""
    labels = _labels(groups)
    B = np.zeros((P, len(lam)))
    B[np.arange(P), labels] = np.exp(lam)[labels] * x
    return B


def difference(f: Any, at: Any, d: Any, step: float = 1e-5) -> Any:
    """Central difference of f along d, extrapolated once: error of order step⁴."""
    one = (f(at + step * d) - f(at - step * d)) / (2 * step)
    two = (f(at + 2 * step * d) - f(at - 2 * step * d)) / (4 * step)
    return (4 * one - two) / 3


def place(backend: Any, dtype: Any, groups: str) -> tuple[Any, Any, Any, Any, Any]:
    """The model on the backend, x and λ there and on the host."""
    X, y = numbers()
    there = [backend.asarray(a, dtype=dtype) for a in (X, y)]
    model = linear_model(*there, Logistic(), groups=GROUPS[groups])
    rng = np.random.default_rng(9)
    x, lam = rng.standard_normal(P), 0.5 * rng.standard_normal(M[groups])
    return model, backend.asarray(x, dtype=dtype), backend.asarray(lam, dtype=dtype), x, lam


def test_value_and_derivatives(backend, dtype, groups, assert_close):
    model, x, lam, x_host, lam_host = place(backend, dtype, groups)
    point, kind = model.at(x, lam), GROUPS[groups]
    rng = np.random.default_rng(1)
    v, q, d = rng.standard_normal(P), rng.standard_normal(P), rng.standard_normal(M[groups])
    V, R = np.stack([v, q], axis=1), np.stack([q, v, q], axis=1)
    H, B = hessian(x_host, lam_host, kind), cross(x_host, lam_host, kind)
    close = {"dtype": dtype, "rtol": 1e-4 if dtype == backend.xp.float32 else 1e-12}

    def there(array: Any) -> Any:
        return backend.asarray(array, dtype=dtype)

    assert_close(point.value, reference(x_host, lam_host, kind), **close)
    assert_close(point.hvp(there(v)), H @ v, **close)
    assert_close(point.hvp(there(V)), H @ V, **close)
    assert_close(point.diag(), np.diag(H), **close)
    assert_close(point.cross_vjp(there(q)), B.T @ q, **close)
    assert_close(point.cross_vjp(there(R)), B.T @ R, **close)
    assert_close(point.cross_jvp(there(d)), B @ d, **close)
    (norm,) = backend.scalars(point.cross_norm)
    assert norm >= np.linalg.norm(B, 2) * (1 - 1e-6)


def test_the_closed_forms_are_the_derivatives_of_the_value(groups):
    """The dense formulas above, which the backends are held to, against differences of h."""
    _, _, _, x, lam = place(get_backend("numpy"), np.float64, groups)
    kind = GROUPS[groups]
    X, y = numbers()
    model = linear_model(X, y, Logistic(), groups=kind)
    rng = np.random.default_rng(2)
    for _ in range(3):
        v, d = rng.standard_normal(P), rng.standard_normal(M[groups])
        slope = difference(lambda z: reference(z, lam, kind), x, v, 1e-3)
        assert slope == pytest.approx(model.at(x, lam).grad @ v, rel=1e-8)
        Hv = difference(lambda z: model.at(z, lam).grad, x, v, 1e-3)
        np.testing.assert_allclose(hessian(x, lam, kind) @ v, Hv, rtol=1e-6, atol=1e-8)
        Bd = difference(lambda z: model.at(x, z).grad, lam, d, 1e-3)
        np.testing.assert_allclose(cross(x, lam, kind) @ d, Bd, rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_torch_autodiff_agrees(groups):
    torch = pytest.importorskip("torch")
    backend = get_backend("torch")
    model, x, lam, _, _ = place(backend, torch.float64, groups)
    X, y = (torch.from_numpy(a) for a in numbers())
    labels = torch.from_numpy(_labels(GROUPS[groups]))

    def h(x: Any, lam: Any) -> Any:
        loss = torch.nn.functional.softplus(-y * (X @ x)).sum()
        return loss + 0.5 * (torch.exp(lam)[labels] * x * x).sum()

    point = model.at(x, lam)
    rng = np.random.default_rng(3)
    v, d = (
        torch.from_numpy(rng.standard_normal(P)),
        torch.from_numpy(rng.standard_normal(M[groups])),
    )
    grad = torch.func.grad(h)
    torch.testing.assert_close(point.value, h(x, lam), rtol=1e-6, atol=0)
    torch.testing.assert_close(point.grad, grad(x, lam), rtol=1e-6, atol=1e-12)
    Hv = torch.func.jvp(lambda z: grad(z, lam), (x,), (v,))[1]
    torch.testing.assert_close(point.hvp(v), Hv, rtol=1e-6, atol=1e-12)
    Bd = torch.func.jvp(lambda z: grad(x, z), (lam,), (d,))[1]
    torch.testing.assert_close(point.cross_jvp(d), Bd, rtol=1e-6, atol=1e-12)
    Btv = torch.func.vjp(lambda z: grad(x, z), lam)[1](v)[0]
    torch.testing.assert_close(point.cross_vjp(v), Btv, rtol=1e-6, atol=1e-12)


def test_gradient_on_every_backend(backend, groups, assert_close):
    model, x, lam, x_host, lam_host = place(backend, backend.xp.float64, groups)
    X, y = numbers()
    kind = GROUPS[groups]
    expected = linear_model(X, y, Logistic(), groups=kind).at(x_host, lam_host).grad
    assert_close(model.at(x, lam).grad, expected)


# -- rays and carry ------------------------------------------------------------------------------


def test_a_ray_is_the_function_along_a_line(backend, groups, assert_close):
    model, x, lam, x_host, _ = place(backend, backend.xp.float64, groups)
    d_host = np.random.default_rng(4).standard_normal(P)
    d = backend.asarray(d_host)
    point = model.at(x, lam)
    ray = point.ray(d)
    for t in (0.0, 0.3, 2.0):
        on_ray, afresh = ray.at(t), model.at(backend.asarray(x_host + t * d_host), lam)
        for name in ("value", "grad", "x"):
            assert_close(getattr(on_ray, name), backend.to_numpy(getattr(afresh, name)))
        slope = backend.to_numpy(afresh.grad) @ d_host
        assert backend.scalars(ray.slope(on_ray)) == pytest.approx((slope,), rel=1e-10)


def test_a_line_search_costs_one_product(backend):
    model, x, lam, _, _ = place(backend, backend.xp.float64, "one")
    point = model.at(x, lam)
    _ = point.value
    before = model.passes
    ray = point.ray(x)
    for t in (0.5, 1.0, 1.5):
        trial = ray.at(t)
        _ = trial.value, ray.slope(trial)
    assert model.passes - before == 1


def test_each_quantity_is_computed_once(backend):
    model, x, lam, _, _ = place(backend, backend.xp.float64, "one")
    point = model.at(x, lam)
    assert model.passes == 0
    for _ in range(2):
        _ = point.value, point.grad, point.diag()
    assert model.passes == 3  # X x, Xᵀ ℓ', diag XᵀDX
    point.hvp(backend.asarray(np.ones((P, 4))))
    assert (model.passes, model.column_passes) == (5, 11)
    moved = model.at(x, lam + 1.0, point.carry)
    assert backend.scalars(moved.value) != backend.scalars(point.value)
    assert model.passes == 5  # the margins were handed over


def test_carry_changes_no_bit(backend, groups):
    model, x, lam, _, _ = place(backend, backend.xp.float64, groups)
    fresh, carried = model.at(x, lam), model.at(x, lam, model.at(x, lam).carry)
    assert np.array_equal(backend.to_numpy(fresh.grad), backend.to_numpy(carried.grad))
    assert backend.scalars(fresh.value) == backend.scalars(carried.value)


# -- constants -----------------------------------------------------------------------------------


def spectral(matrix: Any) -> float:
    return float(np.linalg.norm(matrix, 2))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_stated_constants_hold_on_random_pairs(groups, scale):
    X, y = numbers()
    kind = GROUPS[groups]
    model = linear_model(X, y, Logistic(), groups=kind)
    rng = np.random.default_rng(5)
    for _ in range(40):
        lam = 2 * rng.standard_normal(M[groups])
        constants = model.constants(lam)
        x = scale * rng.standard_normal(P)
        z = x + 10.0 ** rng.integers(-3, 1) * rng.standard_normal(P)
        distance = np.linalg.norm(x - z)
        H, H_z = hessian(x, lam, kind), hessian(z, lam, kind)
        spectrum = np.linalg.eigvalsh(H)
        assert constants.mu <= spectrum[0] * (1 + 1e-10)
        assert spectrum[-1] <= constants.smoothness * (1 + 1e-10)
        assert spectral(H - H_z) <= constants.hessian_lipschitz * distance * (1 + 1e-10)
        change = spectral(cross(x, lam, kind) - cross(z, lam, kind))
        assert change <= constants.cross_lipschitz * distance * (1 + 1e-10)


def test_constants_cost_no_counted_pass(backend):
    model, _, lam, _, _ = place(backend, backend.xp.float64, "one")
    model.constants(lam)
    assert (model.passes, model.column_passes) == (0, 0)


@pytest.mark.parametrize("wrap", [WithIntercept, Standardized.fit])
def test_constants_of_wrapped_designs(wrap):
    X, y = numbers()
    design = wrap(as_design(X))
    model = linear_model(design, y, Logistic())
    X_dense = np.stack([design.matmul(e) for e in np.eye(design.shape[1])], axis=1)
    passes = model.passes
    constants = model.constants(np.zeros(1))
    assert model.passes == passes
    s = 1 / (1 + np.exp(y * (X_dense @ np.zeros(X_dense.shape[1]))))
    H = (X_dense.T * (s * (1 - s))) @ X_dense + np.eye(X_dense.shape[1])
    assert np.linalg.eigvalsh(H)[-1] <= constants.smoothness


# -- the held-out loss ---------------------------------------------------------------------------


def test_held_out_loss(backend, dtype, assert_close):
    A, b = numbers(7)
    x = np.random.default_rng(8).standard_normal(P)
    there = [backend.asarray(a, dtype=dtype) for a in (A, b, x, np.zeros(2))]
    outer = held_out(there[0], there[1], Logistic())
    point = outer.at(there[2], there[3])
    close = {"dtype": dtype, "rtol": 1e-5 if dtype == backend.xp.float32 else 1e-12}
    assert_close(point.value, np.sum(np.logaddexp(0, -b * (A @ x))), **close)
    assert_close(point.grad_x, A.T @ (-b / (1 + np.exp(b * (A @ x)))), **close)
    assert_close(point.grad_lam, np.zeros(2), **close)
    assert outer.passes == 2


def test_held_out_lipschitz_constant_holds():
    A, b = numbers(7)
    outer = held_out(A, b, Logistic())
    constants = outer.constants()
    assert constants.grad_lam_lipschitz == 0.0
    rng = np.random.default_rng(10)
    for _ in range(50):
        x, z = 3 * rng.standard_normal((2, P))
        change = outer.at(x, np.zeros(1)).grad_x - outer.at(z, np.zeros(1)).grad_x
        assert np.linalg.norm(change) <= constants.grad_x_lipschitz * np.linalg.norm(x - z)


# -- errors at the door --------------------------------------------------------------------------


def test_wrong_input_is_refused_by_name(backend):
    X, y = (backend.asarray(a) for a in numbers())
    short, text = y[:3], backend.asarray(numbers()[1] + 3)
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "y must have shape", (X, short, Logistic())),
        (ValueError, "y must hold the labels -1 and \\+1 alone", (X, text, Logistic())),
        (TypeError, "y must be an array, got list", (X, [1.0] * N, Logistic())),
    ]
    for error, message, arguments in cases:
        with pytest.raises(error, match=message):
            linear_model(*arguments)
    with pytest.raises(TypeError, match=r"y has dtype .*float32.* .*float64"):
        linear_model(X, backend.xp.astype(y, backend.xp.float32), Logistic())


def test_wrong_groups_are_refused():
    X, y = numbers()
    for groups, message in (
        (np.zeros(3, dtype=int), r"groups must have shape \(6,\)"),
        (np.array([0, 0, 0, 2, 2, 2]), "groups must use each of 0, ..., m-1"),
        ("some", "groups must be None, 'each' or an array"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_model(X, y, Logistic(), groups=groups)


def test_labels_elsewhere_are_refused(backend):
    X, y = numbers()
    if backend.name == "numpy":
        pytest.skip("there must be two libraries")
    with pytest.raises(ValueError, match="y is on numpy"):
        linear_model(backend.asarray(X), y, Logistic())
