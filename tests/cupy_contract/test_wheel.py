"""The CuPy that is installed, without a driver or a GPU: names, arguments, refusals.

``tox -e cupy-contract,cupy-contract13``. Nothing is computed: no test here says that a kernel runs.
"""

from __future__ import annotations

import importlib
from importlib.metadata import packages_distributions, version

import cupy_names
import cupy_uses
import pytest

from bilevel import BackendUnavailableError, get_backend
from bilevel.backends import is_sparse, library_of
from bilevel.backends._registry import _device_of

pytestmark = [
    pytest.mark.cupy_contract,
    pytest.mark.skipif("cupy" not in packages_distributions(), reason="CuPy is not installed"),
]


@pytest.fixture(scope="module")
def installed():
    return cupy_names.installed()


def test_the_list_of_names_is_that_of_the_wheel(installed):
    stored = cupy_names.stored().get(cupy_names.installed_version())
    if stored is None:
        pytest.skip(f"no list of CuPy {cupy_names.installed_version()}")
    if stored["array_api_compat"] != version("array-api-compat"):
        pytest.skip(f"the list was made with array-api-compat {stored['array_api_compat']}")
    assert installed == stored, "python tests/support/cupy_names.py writes the list anew"


def test_every_name_is_there_and_takes_the_arguments(installed):
    faults = [cupy_uses.fault(use, installed) for use in cupy_uses.of_package()]
    assert [fault for fault in faults if fault] == []


@pytest.mark.parametrize("name", ["csr_matrix", "csc_matrix", "coo_matrix"])
def test_the_device_of_a_sparse_matrix_is_that_of_its_numbers(name):
    import cupyx.scipy.sparse

    matrix = object.__new__(getattr(cupyx.scipy.sparse, name))
    with pytest.raises(NotImplementedError):
        _ = matrix.device  # when this fails the detour by the numbers can go
    matrix.data = type("Numbers", (), {"device": "here"})()
    assert library_of(matrix) == "cupy"
    assert is_sparse(matrix)
    assert _device_of(matrix) == "here"


def test_where_there_is_no_gpu_it_says_so():
    import cupy

    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        pass
    else:
        pytest.skip("there is a driver here")
    with pytest.raises(BackendUnavailableError, match="cannot reach a GPU"):
        get_backend("cupy")


def test_a_missing_cuda_library_is_named_with_its_cure():
    from bilevel.backends import cupy as ours

    try:
        importlib.import_module("cupyx.cusparse")
    except ImportError:
        pass
    else:
        pytest.skip("the CUDA libraries are here")
    with pytest.raises(BackendUnavailableError, match=r"cupy-cuda12x\[ctk\]"):
        ours._sparse()
    with pytest.raises(
        BackendUnavailableError, match=r"cannot compute on it .*cupy-cuda12x\[ctk\]"
    ):
        ours._check_libraries(0)


def test_singular_matrices_are_reported_where_cupy_is_told_to_raise():
    """The setting that the backend makes is the one that CuPy asks for, and is left as it was."""
    import cupyx
    from cupyx._ufunc_config import get_config_linalg

    assert get_config_linalg() == "ignore"
    with cupyx.errstate(linalg="raise"):
        assert get_config_linalg() == "raise"
    assert get_config_linalg() == "ignore"


def test_a_ufunc_is_known_by_its_name() -> None:
    """It notes the kernels that it has made, so that what it holds changes with its first call."""
    cupy = pytest.importorskip("cupy")
    from bilevel.fingerprint import fingerprint

    assert fingerprint(cupy.exp, "f") == {"f": "cupy_exp"}
