"""What the methods ask of a device: ceilings of the model's counts, as they were found."""

import launches
import pytest

pytest.importorskip("cupy._counts", reason="--backends cupy-stand-in asks for it")

#: Launches and reads a pass. A change that lowers them lowers the ceiling. (Pairs over the mean
#: curvatures are four products with them a step: 161 passes of 24.1 launches became 149 of 28.0.)
CEILINGS = {"path": (28.5, 1.3), "hoag": (19, 1.45), "maid": (18, 1.3)}


@pytest.mark.parametrize("kind", launches.KINDS)
@pytest.mark.parametrize("method", launches.METHODS)
def test_launches_and_reads_a_pass_stay_below_what_was_found(method: str, kind: str) -> None:
    row = launches.count(method, kind)
    most, reads = CEILINGS[method]
    assert 1 < row.launches_per_pass <= most
    assert 1 <= row.reads_per_pass <= reads


@pytest.mark.parametrize("kind", launches.KINDS)
def test_the_design_is_never_copied(kind: str) -> None:
    row = launches.count("hoag", kind)
    assert 0 < row.largest_copy < row.design


@pytest.mark.parametrize("kind", launches.KINDS)
def test_the_loop_reads_through_scalars_alone(kind: str) -> None:
    reads = launches.count("path", kind).reads
    beside = {name: times for name, times in reads.items() if name != "get"}
    # Of a matrix that is built: the bounds of its rows, and whether their entries are in order.
    assert sum(beside.values()) <= (1 if kind == "dense" else 11), beside
