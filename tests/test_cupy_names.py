"""CuPy has every name that the package uses, and takes the arguments: by the list of its names.

No CuPy is needed: the list was read from its wheels, and ``tests/cupy_contract`` holds it against
them. It says nothing of what a kernel computes.
"""

from __future__ import annotations

import cupy_names
import cupy_uses
import pytest

STORED = cupy_names.stored()
USES = cupy_uses.of_package()


def test_the_oldest_and_the_newest_are_there():
    assert {version.partition(".")[0] for version in STORED} == {"13", "14"}


def test_the_uses_are_read():
    """A reader that finds nothing would let everything pass."""
    found = {(use.owner, use.name) for use in USES}
    assert len({name for owner, name in found if owner == cupy_uses.NAMESPACE}) > 50
    for expected in [
        ("array_api_compat.cupy", "vecdot"),
        ("array_api_compat.cupy.linalg", "eigh"),
        ("cupy", "asnumpy"),
        ("cupy.add", "at"),
        ("cupy.cuda", "get_current_stream"),
        ("cupy.cuda.runtime", "getDeviceCount"),
        ("cupyx", "errstate"),
        ("cupyx.scipy.linalg", "solve_triangular"),
        ("cupyx.scipy.sparse", "csr_matrix"),
        (cupy_uses.MATRIX, "sum_duplicates"),
        (cupy_uses.MATRIX, "tocsr"),
        ("cupy.cuda.Device", "synchronize"),
    ]:
        assert expected in found


@pytest.mark.parametrize("version", sorted(STORED))
def test_every_name_is_there_and_takes_the_arguments(version):
    faults = [cupy_uses.fault(use, STORED[version]) for use in USES]
    assert [fault for fault in faults if fault] == []


NAMESPACE_CODE = {
    "xp.matmul(a, b)": None,
    "backend.xp.made_up(a)": "has no made_up",
    "self.backend.xp.linalg.made_up(a)": "linalg has no made_up",
    "xp.sum(a, axis=0, made_up=1)": "does not bind: got an unexpected keyword argument 'made_up'",
    "xp.add(a, b, made_up=1)": "is a ufunc without ['made_up']",
    "xp.add(a)": "takes 2 arrays, got 1",
    "xp.add(a, b, c, d)": "takes 2 arrays, got 4",
    "xp.multiply(a, b, out=c)": None,
    "xp.reshape(a)": "does not bind: missing a required argument",
    "xp.zeros(3, made_up=1)": "knows no ['made_up']",
    "xp.matmul(a, b, made_up=1)": "made_up",
    "xp.concat(parts, axis=1)": None,
    "xp.eye(3, **options)": None,
    "xp.stack(*parts)": None,
    "xp.vecdot(a, b, axis=-2)": None,
}


@pytest.mark.parametrize("version", sorted(STORED))
@pytest.mark.parametrize("code", NAMESPACE_CODE)
def test_what_does_not_fit_is_found(code, version):
    faults = [cupy_uses.fault(use, STORED[version]) for use in cupy_uses.of_namespace(code, "x.py")]
    found = [fault for fault in faults if fault]
    expected = NAMESPACE_CODE[code]
    assert (found == []) if expected is None else (expected in found[0])


LIBRARY_CODE = {
    "matrix.tocsr()": None,
    "matrix.device": "device of cupyx.scipy.sparse.csr_matrix is not implemented",
    "matrix.data.device": None,
    "self.matrix.made_up": "csr_matrix has no made_up",
    "matrix.copy(True)": "does not bind: too many positional arguments",
    "importlib.import_module('cupy').made_up(1)": "cupy has no made_up",
    "importlib.import_module('cupyx').errstate(linalg='raise')": None,
    "importlib.import_module('cupyx').errstate(made_up='raise')": "unexpected keyword argument",
    "linalg = importlib.import_module('cupyx.scipy.linalg')\n"
    "    linalg.solve_triangular(a, b, upper=True)": "unexpected keyword argument 'upper'",
    "cuda = importlib.import_module('cupy').cuda\n    cuda.runtime.made_up()": "runtime has no made",
    "importlib.import_module('cupy').add.at(a, b, c)": None,
    "importlib.import_module('cupy').add.made_up(a, b, c)": "cupy.add has no made_up",
    "self.device.made_up()": "cupy.cuda.Device has no made_up",
}


@pytest.mark.parametrize("version", sorted(STORED))
@pytest.mark.parametrize("code", LIBRARY_CODE)
def test_what_does_not_fit_is_found_in_the_backend(code, version):
    uses = cupy_uses.of_libraries(f"def f():\n    {code}", "x.py")
    found = [fault for use in uses if (fault := cupy_uses.fault(use, STORED[version]))]
    expected = LIBRARY_CODE[code]
    assert (found == []) if expected is None else (expected in found[0])
