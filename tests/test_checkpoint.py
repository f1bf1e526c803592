"""Checkpoints: a killed run goes on as if nothing had happened."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import bilevel
from bilevel.methods import HOAG
from bilevel.solvers import NewtonCG

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
