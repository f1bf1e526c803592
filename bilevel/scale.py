"""Whether the x of a run is longer than any that h can have told apart."""

from __future__ import annotations

from .backends import Array
from .inner import inner_constants
from .linalg import norm
from .problem import Problem

#: The power of 1/ε that a condition number may have before nothing is told by H: 10¹⁰ in double
#: precision, 10⁴·⁵ in single.
_TOLD = 0.65


def far_out(problem: Problem, lam: Array, x: Array) -> tuple[str, ...]:
    """Say where x is so long that h may have no minimum, once a run has ended without one.

    With g and H the gradient and the Hessian at 0, X(λ) is no longer than ‖g‖ / μ, and ‖g‖² / ‖H g‖
    is the length where no direction is flatter than that of g: beyond that by more than the
    condition number that this precision bears, H is as good as singular along x. Where h states a μ
    it has a minimum.

    Examples
    --------
    >>> import bilevel, numpy as np
    >>> A, b = np.diag([1.0, 0.0]), np.ones(2)
    >>> h = bilevel.inner.from_functions(
    ...     lambda x, lam: (x @ A @ x / 2 - b @ x, A @ x - b),
    ...     like=b, x_shape=(2,), n_hyperparameters=1,
    ... )
    >>> g = bilevel.outer.from_functions(lambda x, lam: (x @ x / 2, x), like=b)
    >>> problem = bilevel.Problem(h, g)
    >>> [len(far_out(problem, np.zeros(1), np.array([1.0, s]))) for s in (1e3, 1e15)]
    [0, 1]
    """
    inner, backend, xp = problem.inner, problem.backend, problem.backend.xp
    if inner_constants(inner, lam).mu is not None:
        return ()
    origin = inner.at(xp.zeros_like(x), lam)
    slope = origin.grad
    long, steep, bent = backend.scalars(
        norm(x, backend), norm(slope, backend), norm(origin.hvp(slope), backend)
    )
    eps = float(xp.finfo(x.dtype).eps)
    if not long * bent * eps**_TOLD > steep * steep > 0:
        return ()
    note = (
        f"x is {long:.2g} long, {long * bent / steep**2:.1g} times what h at 0 would lead to: h "
        "may have no minimum at this λ. bilevel.testing.check_problem looks for that."
    )
    return (note,)
