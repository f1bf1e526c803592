"""Children forked at any moment while threads of their parent are at work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy import sparse

#: A child is given this long for what takes it a few milliseconds.
PATIENCE = 30.0


def child(pid: int) -> str:
    """Wait for a child; how it ended, or nothing where it ended well."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            return "" if code == 0 else f"ended with {code}"
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "waited for ever"


def main(seed: int, n_forks: int) -> None:
    import bilevel
    from bilevel.backends import _host_csr

    _host_csr._MIN_NNZ_PER_THREAD = 500
    rng = np.random.default_rng(seed)
    X = sparse.random_array((1000, 200), density=0.3, format="csr", rng=rng)
    dense, v, r = X.toarray(), rng.standard_normal(200), rng.standard_normal(1000)
    over = threading.Event()

    def right(design: bilevel.design.Design) -> bool:
        products = (design.matmul(v), dense @ v), (design.rmatmul(r), dense.T @ r)
        return all(np.allclose(found, expected) for found, expected in products)

    def work() -> None:
        while not over.is_set():
            design = bilevel.as_design(X)  # what a kernel keeps is made anew each time
            if not all(right(design) for _ in range(3)):
                wrong.append("a product of the parent is wrong")

    wrong: list[str] = []
    shared = bilevel.as_design(X)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(n_forks):
        time.sleep(float(rng.random()) * 0.005)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if right(shared) and right(bilevel.as_design(X)) else 3)
        wrong.append(child(pid))
    over.set()
    print([said for said in wrong if said])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.parametrize("mkl", ["0", "1"])
def test_children_of_a_parent_at_work(draws, mkl):
    for seed in draws(3):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, str(seed), "60"],
            env={**os.environ, "BILEVEL_MKL": mkl, "BILEVEL_NUM_THREADS": "3"},
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE + 60,
            check=False,
        )
        assert done.stdout.strip() == "[]", done.stdout + done.stderr[-1000:]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
