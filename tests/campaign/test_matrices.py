"""Random sparse matrices, spoilt and sound, at every door that takes them.

A spoilt one is refused by a sentence that names it, or describes a matrix after all: then every
product is that of the dense matrix which NumPy alone makes of its parts. Draws run in processes of
their own, by the hundred: one that is killed, or hangs, is a failure, and its draw is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import bilevel
from bilevel.design import as_design

FORMATS = ("csr", "csc", "coo", "bsr")
TENSORS = ("sparse_csr", "sparse_csc", "sparse_coo", "sparse_bsr")
INTEGERS = (np.int32, np.int64, np.int16, np.uint32, np.dtype(">i4"))


@dataclass(frozen=True)
class Parts:
    """The arrays of a matrix: two of numbers (the second is the pointer, if there is one)."""

    kind: str
    shape: tuple[int, int]
    data: Any
    first: Any
    second: Any

    def dense(self) -> Any:
        """The matrix that the parts describe, by NumPy alone; None where they describe none."""
        n, p = self.shape
        if self.kind == "coo":
            rows, cols, blocks = self.first, self.second, self.data[:, None, None]
            sizes = (1, 1)
        else:
            blocks = self.data if self.kind == "bsr" else self.data[:, None, None]
            sizes = blocks.shape[1:]
            lines = (p if self.kind == "csc" else n) // sizes[0]
            pointer = self.second.astype(object)
            steps = pointer[1:] - pointer[:-1]
            fits = len(pointer) == lines + 1 and pointer[0] == 0 and pointer[-1] == len(self.first)
            if not fits or (len(steps) and steps.min() < 0):
                return None
            major = np.repeat(np.arange(lines), steps.astype(np.int64))
            rows, cols = (self.first, major) if self.kind == "csc" else (major, self.first)
        inside = [
            len(a) == len(blocks) and all(0 <= int(k) < size // step for k in a)
            for a, size, step in zip((rows, cols), self.shape, sizes, strict=True)
        ]
        if not all(inside):
            return None
        result = np.zeros((n // sizes[0], sizes[0], p // sizes[1], sizes[1]))
        np.add.at(result, (rows.astype(int), slice(None), cols.astype(int)), blocks)
        return result.reshape(n, p)

    def matrix(self) -> Any:
        """A matrix of SciPy, whose arrays are put in place after it was made."""
        n, p = self.shape
        if self.kind == "coo":
            X = sparse.coo_array((n, p), dtype=self.data.dtype)
            X.data, X.coords = self.data, (self.first, self.second)
            return X
        if self.kind == "bsr":
            X = sparse.bsr_array((n, p), blocksize=self.data.shape[1:], dtype=self.data.dtype)
        else:
            X = getattr(sparse, f"{self.kind}_array")((n, p), dtype=self.data.dtype)
        X.data, X.indices, X.indptr = self.data, self.first, self.second
        return X

    def tensor(self) -> Any:
        """The same as a tensor of torch, which checks nothing of it."""
        import torch

        there = [torch.from_numpy(a) for a in (self.data, self.first, self.second)]
        options = {"size": self.shape, "check_invariants": False}
        if self.kind == "coo":
            return torch.sparse_coo_tensor(torch.stack(there[1:]), there[0], **options)
        layout = getattr(torch, f"sparse_{self.kind}")
        return torch.sparse_compressed_tensor(
            there[2], there[1], there[0], layout=layout, **options
        )


def sound(rng: np.random.Generator) -> Parts:
    """A matrix with rows in no order, repeated entries, and zeros that are stored."""
    kind = str(rng.choice(FORMATS))
    block = (int(rng.integers(1, 4)), int(rng.integers(1, 4))) if kind == "bsr" else (1, 1)
    n, p = (int(rng.integers(1, 9)) * b for b in block)
    nnz = int(rng.integers(0, 40))
    shape = (nnz, *block) if kind == "bsr" else (nnz,)
    data = rng.standard_normal(shape).astype(rng.choice([np.float32, np.float64]))
    data[rng.random(nnz) < 0.1] = 0
    lines, size = (p, n) if kind == "csc" else (n // block[0], p // block[1])
    major, minor = rng.integers(0, lines, nnz), rng.integers(0, size, nnz)
    if kind == "coo":
        return Parts(kind, (n, p), data, major, minor)
    if rng.random() < 0.3:  # in order, each entry once
        _, kept = np.unique(major * size + minor, return_index=True)
        data, major, minor = data[kept], major[kept], minor[kept]
    pointer = np.concatenate([[0], np.cumsum(np.bincount(major, minlength=lines))])
    order = np.argsort(major, kind="stable")
    return Parts(kind, (n, p), data[order], minor[order], pointer.astype(np.int64))


def spoilt(parts: Parts, rng: np.random.Generator) -> Parts:
    """One of its arrays changed as a wrong program, or a wrong file, would."""
    name = str(rng.choice(["first", "first", "second", "second", "data"]))
    array = getattr(parts, name).copy()
    what = rng.integers(0, 5)
    if what <= 2 and name != "data" and len(array):
        size = max(*parts.shape, len(parts.data))
        far = [-1, size, 1000, 10**6, 2**31 - 1, -(2**31), -(10**6), 2**40, -(2**62)]
        array[rng.integers(0, len(array))] = rng.choice([*far, int(rng.integers(0, size + 1))])
    elif what == 3:
        array = array[: rng.integers(0, len(array) + 1)]
    elif what == 4:
        array = np.concatenate([array, array[: rng.integers(0, 4)]])
    else:
        array = array + (array.dtype.type(1) if rng.random() < 0.5 else 0)
    return replace(parts, **{name: array})


def with_integers(parts: Parts, rng: np.random.Generator) -> Parts:
    """Index arrays of other integers, lying anyhow, where the numbers fit."""

    def changed(a: Any) -> Any:
        kind = np.dtype(INTEGERS[rng.integers(0, len(INTEGERS))])
        limits = np.iinfo(kind)
        if len(a) and (a.min() < limits.min or a.max() > limits.max):
            return a
        a = a.astype(kind)
        return np.repeat(a, 2)[::2] if rng.random() < 0.3 else a

    return replace(parts, first=changed(parts.first), second=changed(parts.second))


def check_products(X: Any, dense: Any) -> None:
    """Every product of a design is that of the dense matrix."""
    design = as_design(X)
    backend = design.backend
    n, p = dense.shape
    rtol = 1e-4 if dense.dtype == np.float32 or str(X.dtype).endswith("32") else 1e-12
    rng = np.random.default_rng(0)
    index = rng.integers(0, n, 3)
    v, r = rng.standard_normal((p, 2)), rng.standard_normal((n, 2))
    send = lambda a: backend.asarray(a, dtype=design.dtype)
    squares = dense * dense
    for found, expected in (
        (design.matmul(send(v)), dense @ v),
        (design.rmatmul(send(r)), dense.T @ r),
        (design.gram_diag(send(r[:, 0])), squares.T @ r[:, 0]),
        (design.square_matmul(send(v[:, 0])), squares @ v[:, 0]),
        (design.rows(index).matmul(send(v)), dense[index] @ v),
    ):
        scale = rtol * (1 + np.abs(expected).max(initial=0) + squares.sum())
        np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=0, atol=scale)


def by_the_estimator(X: Any) -> None:
    """fit, which converts the matrix; what is wrong with the rows or labels is not asked here."""
    from bilevel.estimators import BilevelRidge

    BilevelRidge(cv=2, max_iter=1).fit(X, np.arange(float(X.shape[0])))


def answer(door: Callable[[], None], fits: bool) -> str:
    """What a door says of a matrix: "" where it is right."""
    try:
        door()
    except (ValueError, TypeError) as error:
        text = str(error)
        if fits:
            return f"refused though sound: {text}"
        return "" if text.startswith("X") and "\n" not in text else f"no sentence: {text!r}"
    except AssertionError as error:
        return "wrong: " + " ".join(str(error).split())
    return "" if fits else "taken though spoilt"


def run(seed: int) -> str:
    """One draw; what is wrong, or nothing."""
    rng = np.random.default_rng(seed)
    parts = sound(rng)
    if rng.random() < 0.8:
        parts = spoilt(parts, rng)
    dense = parts.dense()
    doors: list[tuple[str, Callable[[], None]]] = []
    if parts.kind != "bsr" or 0 not in parts.data.shape:
        odd = with_integers(parts, rng)
        doors.append(("SciPy", lambda: check_products(odd.matrix(), dense)))
    if dense is None:
        other = np.ones((2, parts.shape[1]))
        doors += [
            ("estimator", lambda: by_the_estimator(parts.matrix())),
            (
                "problem",
                lambda: bilevel.logistic_regression(
                    parts.matrix(), np.ones(parts.shape[0]), other, np.ones(2)
                ),
            ),
        ]
    try:
        import torch  # noqa: F401

        tensor = parts.tensor()
    except (ImportError, RuntimeError):  # torch refuses some shapes by itself
        pass
    else:
        doors.append(("torch", lambda: check_products(tensor, dense)))
    for name, door in doors:
        said = answer(door, dense is not None)
        if said:
            return f"{parts.kind}, {name}: {said}"
    return ""


def main(seeds: list[int]) -> None:
    warnings.simplefilter("ignore")
    for seed in seeds:
        print(seed, end=" ", flush=True)
        print(run(seed), flush=True)


def _batch(seeds: list[int], mkl: str) -> list[str]:
    """The draws that went wrong, or killed their process, or hung."""
    wrong = []
    while seeds:
        try:
            done = subprocess.run(
                [sys.executable, __file__, *map(str, seeds)],
                env={**os.environ, "BILEVEL_MKL": mkl},
                capture_output=True,
                text=True,
                timeout=60 + 2 * len(seeds),
                check=False,
            )
            code, out = str(done.returncode), done.stdout
            errors = done.stderr[-300:]
        except subprocess.TimeoutExpired as error:
            code, out, errors = "no end", (error.stdout or b"").decode(), ""
        lines = out.splitlines()
        wrong += [line for line in lines if line.split(" ", 1)[1:] not in ([], [""])]
        if code == "0":
            break
        if not lines:
            raise RuntimeError(f"no draw began: {errors}")
        wrong.append(f"{lines[-1]}: the process ended with {code} {errors}")
        seeds = seeds[len(lines) :]
    return wrong


@pytest.mark.parametrize("mkl", ["0", "1"])
def test_no_spoilt_matrix_is_taken_and_no_sound_one_is_wrong(draws, mkl):
    seeds = draws(1500)
    wrong = []
    for start in range(0, len(seeds), 200):
        wrong += _batch(seeds[start : start + 200], mkl)
    assert not wrong, f"{len(wrong)} of {len(seeds)}: " + "\n".join(wrong[:20])


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]])
