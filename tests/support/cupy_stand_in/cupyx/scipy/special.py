"""Elementwise functions of SciPy's, each a launch."""

from __future__ import annotations

from typing import Any

import scipy.special
from cupy._functions import missing, ufunc
from cupy._names import names


def _made() -> dict[str, Any]:
    found = {}
    for name, said in names("modules", "cupyx.scipy.special").items():
        call = getattr(scipy.special, name, None)
        if isinstance(said[-1], list) and call is not None:
            found[name] = ufunc(name, *said[-1], call)
        else:
            found[name] = missing(name)
    return found


globals().update(_made())
