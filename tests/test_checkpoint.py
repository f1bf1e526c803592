"""Checkpoints: a killed run goes on as if nothing had happened."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from thin import first

import bilevel
import bilevel.io
from bilevel import checkpoint as checkpoints
from bilevel.fingerprint import fingerprint
from bilevel.inner import from_functions
from bilevel.methods import HOAG, PathFollowing
from bilevel.outer import from_functions as outer_from_functions
from bilevel.schedules import Exponential
from bilevel.solvers import LBFGS, NewtonCG

RUN = """
import sys, time
import numpy as np
import bilevel

def problem(seed=0, n=50, p=20):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, p))
    y = np.where(X @ rng.standard_normal(p) + 3 * rng.standard_normal(2 * n) > 0, 1.0, -1.0)
    return bilevel.logistic_regression(X[:n], y[:n], X[n:], y[n:])

def run(path, pause, resume, seed=0):
    return bilevel.minimize(
        problem(seed), -3.0, method="hoag", max_iter=25, tol=0.0,
        callback=lambda record: time.sleep(pause), checkpoint=path, resume=resume,
    )

if __name__ == "__main__":
    result = run(sys.argv[1], float(sys.argv[2]), sys.argv[3] == "resume")
    print(result.lam[0].hex() if hasattr(result.lam[0], "hex") else float(result.lam[0]).hex(),
          result.nit, result.passes)
"""


def scope():
    names = {"__name__": "loaded"}
    exec(RUN, names)
    return names


def start(path, pause, mode):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(path), str(pause), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_kill_9_and_resume_gives_the_same_bits(tmp_path):
    whole, _ = start(tmp_path / "whole.npz", 0.0, "fresh").communicate(timeout=60)
    path = tmp_path / "killed.npz"
    process = start(path, 0.1, "fresh")
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.45)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL  # it was in mid-run
    resumed, _ = start(path, 0.0, "resume").communicate(timeout=60)
    assert resumed == whole
    assert whole.split()[1] == "25"


def test_a_resumed_run_has_the_same_records(tmp_path):
    names, path = scope(), tmp_path / "run.npz"
    problem = names["problem"]
    whole = bilevel.minimize(problem(), -3.0, method="hoag", max_iter=12, tol=0.0)
    bilevel.minimize(problem(), -3.0, method="hoag", max_iter=5, tol=0.0, checkpoint=path)
    resumed = bilevel.minimize(
        problem(), -3.0, method="hoag", max_iter=12, tol=0.0, checkpoint=path, resume=True
    )

    def plain(result):
        return [
            repr(dataclasses.replace(r, costs=dataclasses.replace(r.costs, seconds=0.0)))
            for r in result.history
        ]

    assert plain(resumed) == plain(whole)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert resumed.passes == whole.passes
    assert resumed.seconds > resumed.history[4].seconds > 0  # the clock goes on too


def test_a_finished_run_is_not_run_again(tmp_path):
    names, path = scope(), tmp_path / "run.npz"
    first = names["run"](path, 0.0, resume=False)
    again = names["run"](path, 0.0, resume=True)
    np.testing.assert_array_equal(again.lam, first.lam)
    assert (again.nit, again.passes, again.status) == (first.nit, first.passes, first.status)


def test_without_resume_the_file_is_written_anew(tmp_path):
    names, path = scope(), tmp_path / "run.npz"
    names["run"](path, 0.0, resume=False)
    short = bilevel.minimize(
        names["problem"](), 1.0, method="hoag", max_iter=2, tol=0.0, checkpoint=path
    )
    assert short.nit == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_every_backend(tmp_path, backend, dtype):
    rng = np.random.default_rng(0)
    kind = getattr(backend.xp, dtype)
    X, y = rng.standard_normal((40, 6)), np.where(rng.standard_normal(40) > 0, 1.0, -1.0)
    arrays = [
        backend.asarray(a.astype(dtype), dtype=kind) for a in (X[:20], y[:20], X[20:], y[20:])
    ]
    path = tmp_path / "run.npz"
    keywords = {"method": "hoag", "tol": 0.0}
    whole = bilevel.minimize(bilevel.logistic_regression(*arrays), max_iter=6, **keywords)
    keywords["checkpoint"] = path
    bilevel.minimize(bilevel.logistic_regression(*arrays), max_iter=3, **keywords)
    resumed = bilevel.minimize(
        bilevel.logistic_regression(*arrays), max_iter=6, resume=True, **keywords
    )
    assert resumed.lam.dtype == kind
    assert bilevel.get_backend(resumed.lam) == backend
    np.testing.assert_array_equal(backend.to_numpy(resumed.lam), backend.to_numpy(whole.lam))


def test_a_checkpoint_of_another_problem_is_refused(tmp_path):
    names, path = scope(), tmp_path / "run.npz"
    names["run"](path, 0.0, resume=False)
    problem = names["problem"]
    cases = {
        "problem": (problem(p=21), "hoag"),
        "method": (problem(), HOAG(solver=NewtonCG())),
    }
    for what, (other, method) in cases.items():
        with pytest.raises(ValueError, match=f"is of another {what}"):
            bilevel.minimize(other, method=method, checkpoint=path, resume=True)


def test_a_checkpoint_of_other_data_of_the_same_shape_is_refused(tmp_path):
    names, path = scope(), tmp_path / "run.npz"
    names["run"](path, 0.0, resume=False)
    with pytest.raises(ValueError, match="is of another problem"):
        names["run"](path, 0.0, resume=True, seed=1)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint of bilevel"):
        scope()["run"](path, 0.0, resume=True)


def test_a_kill_while_writing_leaves_the_last_file_whole(tmp_path, monkeypatch):
    """The new file is written beside the old one and takes its place in one step."""
    names, path = scope(), tmp_path / "run.npz"
    names["run"](path, 0.0, resume=False)
    before = path.read_bytes()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    result = bilevel.minimize(names["problem"](), 2.0, method="hoag", max_iter=3, checkpoint=path)
    assert result.status is bilevel.Status.INTERRUPTED
    assert path.read_bytes() == before


def small(backend, dtype="float64", sparse=False, **change):
    """A problem of 40 rows; ``change`` replaces one entry of an array that it names."""
    rng = np.random.default_rng(0)
    arrays = {
        "X": rng.standard_normal((20, 6)),
        "y": np.where(rng.standard_normal(20) > 0, 1.0, -1.0),
        "X_val": rng.standard_normal((20, 6)),
        "y_val": np.where(rng.standard_normal(20) > 0, 1.0, -1.0),
    }
    for name, (place, factor) in change.items():
        arrays[name][place] *= factor
    kind = getattr(backend.xp, dtype)
    moved = [backend.asarray(a.astype(dtype), dtype=kind) for a in arrays.values()]
    if sparse:
        from scipy.sparse import csr_matrix

        from bilevel.design import from_host

        for i, name in ((0, "X"), (2, "X_val")):
            moved[i] = from_host(csr_matrix(arrays[name]), backend, kind)
    return bilevel.logistic_regression(*moved)


START = {"lam0": -3.0, "x0": None, "tol": 0.0, "max_iter": 2}


@pytest.mark.parametrize("method", ["hoag", "path", "maid"])
@pytest.mark.parametrize("how", ["folder gone", "disk full", "no permission", "bug"])
def test_a_checkpoint_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch, how, method):
    numpy = bilevel.get_backend("numpy")
    whole = bilevel.minimize(small(numpy), -3.0, method=method, max_iter=4)
    path = tmp_path / "here" / "run.npz"
    path.parent.mkdir()
    faults = {
        "disk full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        "no permission": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
        "bug": TypeError("A checkpoint can't hold a dict."),
    }
    if how == "folder gone":
        path.parent.rmdir()
        path.parent.mkdir()
        callback = lambda record: shutil.rmtree(path.parent, ignore_errors=True)
    else:
        callback = None

        def fail(target):
            raise faults[how]

        monkeypatch.setattr(checkpoints, "replacing", fail)
    with pytest.warns(RuntimeWarning, match="could not be written.*The run goes on") as caught:
        result = bilevel.minimize(
            small(numpy), -3.0, method=method, max_iter=4, checkpoint=path, callback=callback
        )
    assert len(caught) == 1  # not once an iteration
    np.testing.assert_array_equal(result.x, whole.x)
    assert (result.nit, result.status, result.fun) == (whole.nit, whole.status, whole.fun)
    (note,) = result.notes
    assert str(path) in note
    assert note in result.message
    assert not whole.notes


def test_a_checkpoint_that_can_be_written_again_is_whole(tmp_path, monkeypatch):
    numpy, path = bilevel.get_backend("numpy"), tmp_path / "run.npz"
    right, times = checkpoints.replacing, iter(range(99))

    def fails_once(target):
        if next(times) == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return right(target)

    monkeypatch.setattr(checkpoints, "replacing", fails_once)
    with pytest.warns(RuntimeWarning, match="No space left"):
        result = bilevel.minimize(
            small(numpy), -3.0, method="hoag", tol=0.0, max_iter=4, checkpoint=path
        )
    assert result.notes == ()
    again = bilevel.minimize(
        small(numpy), -3.0, method="hoag", tol=0.0, max_iter=4, checkpoint=path, resume=True
    )
    np.testing.assert_array_equal(again.x, result.x)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"lam0": 1.0}, r"another start: lam0 is float64 \(1,\) \[-3.0\] in .* and .* \[1.0\]"),
        ({"x0": np.ones(6)}, "another start: x0 is None in the file and float64"),
        ({"tol": 1e-3}, "another start: tol is 0.0 in the file and 0.001 here"),
        ({"method": "path"}, "another method: method is HOAG in the file and PathFollowing"),
        ({"method": HOAG(tolerances=Exponential(ratio=0.8))}, "method.tolerances.ratio is 0.9"),
        ({"method": HOAG(max_inner=99)}, "method.max_inner is 10000 in the file and 99 here"),
        ({"method": HOAG(solver=LBFGS(history=3))}, "method.solver.history is 10"),
        ({"method": HOAG(default_tol=1e-3)}, "method.default_tol"),
    ],
)
def test_a_resume_with_another_option_is_refused(tmp_path, other, said):
    numpy, path = bilevel.get_backend("numpy"), tmp_path / "run.npz"
    first = {**START, "method": HOAG(), "checkpoint": path}
    bilevel.minimize(small(numpy), **first)
    with pytest.raises(ValueError, match=said):
        bilevel.minimize(small(numpy), **{**first, **other}, resume=True)
    more = bilevel.minimize(small(numpy), **{**first, "max_iter": 4}, resume=True)
    assert more.nit == 4  # a budget may differ


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(PathFollowing)])
def test_every_option_of_the_default_method_counts(field):
    value = getattr(PathFollowing(), field)
    other = {field: not value if isinstance(value, bool) else value + 1}
    try:
        changed = PathFollowing(**other)
    except ValueError:
        changed = PathFollowing(**{field: value / 2})
    found = [fingerprint(method, "method") for method in (PathFollowing(), changed)]
    assert [name for name in found[0] if found[0][name] != found[1][name]] == [f"method.{field}"]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", first(1, ["float32", "float64"]))
@pytest.mark.parametrize("name", ["X", "y", "X_val", "y_val"])
def test_one_number_of_the_data_that_differs_is_seen(tmp_path, backend, name, dtype, sparse):
    """On any library; by a factor that moves no sum and no criterion by more than rounding."""
    path = tmp_path / "run.npz"
    options = {**START, "method": "hoag", "checkpoint": path}
    try:
        bilevel.minimize(small(backend, dtype, sparse), **options)
    except bilevel.BackendUnavailableError:
        pytest.skip("no sparse arrays")
    place = (3, 4) if name.startswith("X") else 3
    factor = 1 + 4 * np.finfo(dtype).eps if name.startswith("X") else -1
    other = small(backend, dtype, sparse, **{name: (place, factor)})
    with pytest.raises(ValueError, match="another problem"):
        bilevel.minimize(other, **options, resume=True)
    bilevel.minimize(small(backend, dtype, sparse), **options, resume=True)


def test_ten_rows_of_ten_thousand_are_seen(tmp_path):
    """A criterion at one point moves by less than the rounding of another machine."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((10_000, 3)), np.where(rng.standard_normal(10_000) > 0, 1.0, -1.0)
    other = X.copy()
    other[17:27] = rng.standard_normal((10, 3))
    problems = [bilevel.logistic_regression(A, y, X, y) for A in (X, other)]
    assert problems[0].probe == pytest.approx(problems[1].probe, rel=1e-3)
    options = {**START, "max_iter": 1, "method": "hoag", "checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(problems[0], **options)
    with pytest.raises(ValueError, match=r"problem\.inner\.design\.array is float64 \(10000, 3\)"):
        bilevel.minimize(problems[1], **options, resume=True)


def functions(target, weight):
    """h = ½‖x - target‖² + ½ e^λ weight ‖x‖², by functions that close over their data."""

    def value_and_grad(x, lam):
        w = weight * np.exp(lam[0])
        return 0.5 * ((x - target) ** 2).sum() + 0.5 * w * (x**2).sum(), x - target + w * x

    def outer(x, lam):
        return 0.5 * ((x - 1.0) ** 2).sum(), x - 1.0

    like = np.zeros(1)
    inner = from_functions(value_and_grad, x_shape=(6,), n_hyperparameters=1, like=like)
    return bilevel.Problem(inner, outer_from_functions(outer, like=like))


def test_data_that_a_function_closes_over_count(tmp_path):
    target = np.arange(6.0)
    options = {**START, "method": "hoag", "checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(functions(target, 1.0), **options)
    moved = target.copy()
    moved[2] *= 1 + 1e-9
    for other in (functions(moved, 1.0), functions(target, 1.0 + 1e-9)):
        with pytest.raises(ValueError, match="another problem"):
            bilevel.minimize(other, **options, resume=True)
    assert bilevel.minimize(functions(target, 1.0), **options, resume=True).nit == 2


def test_the_fingerprint_of_a_problem_is_that_of_its_numbers(backend):
    """Not of its library, nor of what it has computed and counted."""
    numpy = bilevel.get_backend("numpy")
    problem = small(backend)
    before = fingerprint(problem, "problem")
    assert before == fingerprint(small(numpy), "problem")
    bilevel.minimize(problem, max_iter=2)
    assert fingerprint(problem, "problem") == before


def test_data_are_read_once_a_run(tmp_path, monkeypatch):
    numpy = bilevel.get_backend("numpy")
    seen = []
    right = checkpoints.fingerprint
    monkeypatch.setattr(
        checkpoints, "fingerprint", lambda value, name: seen.append(name) or right(value, name)
    )
    bilevel.minimize(
        small(numpy), method="hoag", tol=0.0, max_iter=5, checkpoint=tmp_path / "run.npz"
    )
    assert seen.count("problem") == 1


def test_what_is_planted_beside_the_checkpoint_is_not_touched(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "run.npz"
    for name in ("run.npz.part", ".run.npz.part"):
        (tmp_path / name).symlink_to(victim)
    bilevel.minimize(small(bilevel.get_backend("numpy")), max_iter=1, checkpoint=path)
    assert victim.read_text() == "precious"
    assert not list(tmp_path.glob(".*[0-9a-f].part"))


def test_a_checkpoint_that_is_no_file_is_refused_at_the_door(tmp_path):
    problem = small(bilevel.get_backend("numpy"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="checkpoint must be the path of a file"):
            bilevel.minimize(problem, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="there is no such folder"):
        bilevel.minimize(problem, checkpoint=tmp_path / "none" / "run.npz")


def test_a_damaged_checkpoint_is_refused_or_right(tmp_path):
    """Each byte in its turn: NumPy's reader alone takes a shorter shape for the whole array."""
    numpy, path = bilevel.get_backend("numpy"), tmp_path / "run.npz"
    options = {**START, "method": "hoag", "checkpoint": path}
    whole = bilevel.minimize(small(numpy), **options)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(good), 300, replace=False):
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad[: rng.integers(len(bad))] if place % 5 == 0 else bad)
        with contextlib.suppress(ValueError):
            result = bilevel.minimize(small(numpy), **options, resume=True)
            np.testing.assert_array_equal(result.x, whole.x)


@dataclasses.dataclass(frozen=True)
class HOAGState:
    """A user's own state, called like one of ours."""

    lam: object
    x: object
    steps: int
    record: bilevel.Record | None
    status: bilevel.Status


class Steepest:
    """A user's own method, no dataclass: one over the iteration times the gradient."""

    def __init__(self, length=1.0):
        self.length = length

    def init(self, problem, lam0, x0, tol):
        return HOAGState(lam0, problem.x(x0), 0, None, bilevel.Status.RUNNING)

    def step(self, problem, state):
        record = next(bilevel.iterate(problem, state.lam, method=HOAG(), x0=state.x))
        k = state.steps + 1
        lam = state.lam - self.length / k * record.hypergrad
        return HOAGState(lam, state.x, k, dataclasses.replace(record, k=k), bilevel.Status.RUNNING)


def test_a_method_of_the_user_is_resumed(tmp_path):
    numpy = bilevel.get_backend("numpy")
    whole = bilevel.minimize(small(numpy), method=Steepest(), max_iter=6)
    options = {"checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(small(numpy), method=Steepest(), max_iter=3, **options)
    resumed = bilevel.minimize(small(numpy), method=Steepest(), max_iter=6, resume=True, **options)
    assert [r.value for r in resumed.history] == [r.value for r in whole.history]
    with pytest.raises(ValueError, match="method.length is 1.0 in the file and 2.0 here"):
        bilevel.minimize(small(numpy), method=Steepest(2.0), max_iter=9, resume=True, **options)


FULL = """
import resource, sys, warnings
import numpy as np
import bilevel

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 6)), np.where(rng.standard_normal(40) > 0, 1.0, -1.0)
problem = bilevel.logistic_regression(X[:20], y[:20], X[20:], y[20:])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
result = bilevel.minimize(problem, method="hoag", max_iter=3, tol=0.0, checkpoint=sys.argv[1])
print(result.nit, result.notes[-1])
"""


@pytest.mark.skipif(os.name == "nt", reason="limits are set as on POSIX")
def test_a_limit_of_the_system_ends_no_run(tmp_path):
    """The system itself refuses the write, in mid-file."""
    path = tmp_path / "run.npz"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith(f"3 The checkpoint {path} could not be written: File too large")
    assert list(tmp_path.iterdir()) == []  # nothing half-written is left


def test_what_is_computed_from_the_data_counts_too(tmp_path):
    """Of a standardised design the means are no part of the digest, but of the value."""
    from bilevel.design import Standardized, as_design

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), np.where(rng.standard_normal(40) > 0, 1.0, -1.0)
    base = as_design(X)

    def problem(shift):
        fitted = Standardized.fit(base)
        design = Standardized(base, fitted.mean + shift, fitted.scale)
        return bilevel.logistic_regression(design, y, design, y)

    options = {**START, "method": "hoag", "checkpoint": tmp_path / "run.npz"}
    bilevel.minimize(problem(0.0), **options)
    with pytest.raises(ValueError, match="at the same point its value is"):
        bilevel.minimize(problem(1e-3), **options, resume=True)
    assert bilevel.minimize(problem(1e-15), **options, resume=True).nit == 2


# -- files that were changed -----------------------------------------------------------------------


def written(path):
    """The header and the arrays of a checkpoint of two iterations."""
    bilevel.minimize(small(bilevel.get_backend("numpy")), **START, method="hoag", checkpoint=path)
    with np.load(path) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("text"))), arrays


def replaced(path, header, arrays, signed):
    """Write it again, with the digest of what it holds or with that which it had."""
    if signed:
        header["digest"] = checkpoints._digest(header["content"], arrays)
    np.savez(path, text=np.array(json.dumps(header)), **arrays)


def rounded(tree, arrays):
    arrays["a0"] = np.round(arrays["a0"], 1) + 0.1


def renamed(tree, arrays):
    arrays["more"] = np.zeros(2)


def retyped(tree, arrays):
    arrays["a0"] = arrays["a0"].view(np.int64)


def reshaped(tree, arrays):
    arrays["a0"] = arrays["a0"][None]


def best_of_minus_8(tree, arrays):
    tree["fields"]["best"]["fields"]["value"] = {"float": (-8.0).hex()}


def tol_of_the_state(tree, arrays):
    tree["fields"]["state"]["fields"]["tol"] = {"float": "inf"}


@pytest.mark.parametrize(
    "change", [rounded, renamed, retyped, reshaped, best_of_minus_8, tol_of_the_state]
)
def test_a_file_that_was_changed_is_refused(tmp_path, change):
    """Archives whose checksums are right: they used to be believed."""
    path = tmp_path / "run.npz"
    header, arrays = written(path)
    content = json.loads(header["content"])
    change(content["tree"], arrays)
    header["content"] = json.dumps(content)
    replaced(path, header, arrays, signed=False)
    options = {**START, "method": "hoag", "checkpoint": path}
    with pytest.raises(ValueError, match=f"{path.name} is damaged or was changed"):
        bilevel.minimize(small(bilevel.get_backend("numpy")), **options, resume=True)


def put(*keys, value):
    def change(content, arrays):
        *before, last = keys
        for key in before:
            content = content[key]
        content[last] = value

    return change


STATE = ("tree", "fields", "state")


@pytest.mark.parametrize(
    "change",
    [
        put(*STATE, "fields", "lam", value={"float": "no hexadecimal"}),
        put(*STATE, "fields", "lam", value={"float": 1.0}),
        put(*STATE, "fields", "lam", value={"float": "0x1p+99999"}),
        put(*STATE, "fields", "lam", value=None),
        put(*STATE, "fields", "lam", value={"array": "none"}),
        put(*STATE, "fields", value={}),
        put(*STATE, "class", value="os:system"),
        put("tree", "fields", "history", value=3),
        put("tree", "fields", "more", value=3),
        put("tree", value=7),
        put("probe", value=[1.0]),
        put("probe", value=["a", "b"]),
        put("identity", value=[]),
        put("identity", "start", value=4),
        lambda content, arrays: arrays.update(
            {name: array.astype("float32") for name, array in arrays.items()}
        ),
        lambda content, arrays: arrays.update(
            {name: np.full(array.shape, "a") for name, array in arrays.items()}
        ),
    ],
)
def test_what_cannot_be_decoded_is_one_error(tmp_path, change):
    """Whoever computes the digest again gets past it, and not far."""
    path = tmp_path / "run.npz"
    header, arrays = written(path)
    content = json.loads(header["content"])
    change(content, arrays)
    header["content"] = json.dumps(content)
    replaced(path, header, arrays, signed=True)
    options = {**START, "method": "hoag", "checkpoint": path}
    with pytest.raises(ValueError, match=f"{path.name} is damaged or was changed"):
        bilevel.minimize(small(bilevel.get_backend("numpy")), **options, resume=True)


@pytest.mark.parametrize(
    "name", ["bilevel.methods.attic:HOAGState", "bilevel.methods.hoag:Cellar.HOAGState"]
)
def test_a_file_of_a_class_that_has_moved_is_of_another_version(tmp_path, name):
    """Nothing is wrong with the file: it is whole, and of a version whose rooms are others."""
    path = tmp_path / "run.npz"
    header, arrays = written(path)
    content = json.loads(header["content"])
    put(*STATE, "class", value=name)(content, arrays)
    header["content"] = json.dumps(content)
    replaced(path, header, arrays, signed=True)
    options = {**START, "method": "hoag", "checkpoint": path}
    with pytest.raises(ValueError, match=f"{path.name} holds a {name}, .*another version wrote it"):
        bilevel.minimize(small(bilevel.get_backend("numpy")), **options, resume=True)


@pytest.mark.parametrize("field", ["digest", "content"])
@pytest.mark.parametrize("value", [None, 3, "0", {}])
def test_a_header_that_was_changed_is_refused(tmp_path, field, value):
    path = tmp_path / "run.npz"
    header, arrays = written(path)
    replaced(path, {**header, field: value}, arrays, signed=False)
    options = {**START, "method": "hoag", "checkpoint": path}
    with pytest.raises(ValueError, match=f"{path.name} is damaged or was changed"):
        bilevel.minimize(small(bilevel.get_backend("numpy")), **options, resume=True)


@pytest.mark.parametrize("kind", ["model", "arrays", "text", "truncated"])
def test_what_is_no_checkpoint_is_not_written_over(tmp_path, kind):
    """A file of data was lost to a run whose checkpoint had its name."""
    numpy, path = bilevel.get_backend("numpy"), tmp_path / "run.npz"
    if kind == "arrays":
        np.savez(path, X=np.ones(3), text=np.array("[1, 2]"))
    elif kind == "model":
        bilevel.io.save_model(
            path, bilevel.io.LinearClassifier(np.ones(2), 0.0, np.zeros(1), np.array(["a", "b"]))
        )
    elif kind == "truncated":
        bilevel.minimize(small(numpy), max_iter=1, checkpoint=path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_text("precious")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is no checkpoint of bilevel; it would be written over"):
        bilevel.minimize(small(numpy), max_iter=1, checkpoint=path)
    assert path.read_bytes() == before


def test_an_empty_file_and_a_checkpoint_of_another_version_are_written_over(tmp_path):
    numpy, path = bilevel.get_backend("numpy"), tmp_path / "run.npz"
    path.touch()
    bilevel.minimize(small(numpy), max_iter=1, checkpoint=path)
    header, arrays = checkpoints.read_npz(path)
    with path.open("wb") as file:
        other = {**json.loads(header), "format": 1}
        checkpoints.write_npz(file, json.dumps(other), arrays)
    assert bilevel.minimize(small(numpy), **START, checkpoint=path).nit == 2
    assert bilevel.minimize(small(numpy), **START, checkpoint=path, resume=True).nit == 2


def test_a_resume_with_another_library_says_so(tmp_path):
    numpy, path = bilevel.get_backend("numpy"), tmp_path / "run.npz"
    strict = bilevel.get_backend("array_api_strict")
    bilevel.minimize(small(numpy), **START, checkpoint=path)
    longer = {**START, "max_iter": 4, "checkpoint": path, "resume": True}
    with pytest.warns(
        RuntimeWarning, match="written with numpy and is resumed with array_api_strict"
    ):
        found = bilevel.minimize(small(strict), **longer)
    whole = bilevel.minimize(small(numpy), **{**START, "max_iter": 4})
    np.testing.assert_allclose(strict.to_numpy(found.lam), whole.lam, rtol=1e-9)
    path.unlink()
    bilevel.minimize(small(numpy), **START, checkpoint=path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bilevel.minimize(small(numpy), **longer)
