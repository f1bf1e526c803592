"""Mutated and hostile files: each is read rightly or refused in a sentence, soon and within bounds.

The files are read by another process under a limit of memory, with an alarm for each: one that
hangs or takes the process with it is named. What is right is known of the mutation, or is what an
independent reader (pandas, or a few lines here) makes of the mutated file.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import bilevel

resource = pytest.importorskip("resource")

#: Bytes of address space, and seconds for each file.
MEMORY, SECONDS = 4 << 30, 60

WORKER = """
import json, resource, signal, sys, time, traceback
import numpy as np
from pathlib import Path
from sklearn.datasets import load_svmlight_file  # loaded before the clock runs
from bilevel import io

resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps(dict(name=case["path"], state="begun")), flush=True)
    signal.alarm({seconds})
    start = time.perf_counter()
    said = dict(name=case["path"], state="refused")
    try:
        table = io.read(case["path"], io.ReadOptions(**case["options"])).train
        if case["like"]:
            table = io.same_features(table, io.read(case["like"]).train)
        X = table.X.toarray() if hasattr(table.X, "toarray") else table.X
        np.savez(case["path"] + ".read", X=X, y=table.y)
        said = dict(name=case["path"], state="read", names=table.names)
    except io.BadFileError as error:
        said["said"] = str(error)
    except BaseException:
        said = dict(name=case["path"], state="crashed", said=traceback.format_exc())
    signal.alarm(0)
    print(json.dumps(said | dict(seconds=time.perf_counter() - start)), flush=True)
"""


@dataclass(frozen=True)
class Expected:
    """A table that may come; ``refusal`` says whether a sentence will do as well."""

    X: np.ndarray
    y: np.ndarray
    refusal: bool = False


@dataclass(frozen=True)
class Case:
    """A file, and what it holds; None: it is to be refused."""

    name: str
    content: bytes
    expected: Expected | None
    why: str
    options: dict[str, Any] | None = None
    like: str = ""


def outcomes(folder: Path, cases: Iterable[Case]) -> list[tuple[Case, dict[str, Any]]]:
    """Read every file in another process."""
    cases = list(cases)
    asked = []
    for i, case in enumerate(cases):
        path = folder / f"{i}-{case.name}"
        path.write_bytes(case.content)
        asked.append({"path": str(path), "options": case.options or {}, "like": case.like})
    source = str(Path(bilevel.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WORKER.format(memory=MEMORY, seconds=SECONDS)],
        input="".join(json.dumps(a) + "\n" for a in asked),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    ends = [s for s in said if s["state"] != "begun"]
    assert len(ends) == len(cases), (
        f"died of {done.returncode} at {said[-1]}: {done.stderr[-2000:]}"
    )
    return list(zip(cases, ends, strict=True))


def faults(folder: Path, cases: Iterable[Case]) -> list[str]:
    """What went wrong, a line each; how many were read and refused is printed."""
    found = []
    ends = outcomes(folder, cases)
    states = [end["state"] for _, end in ends]
    counts = {state: states.count(state) for state in sorted(set(states))}
    print(f"{len(ends)} files: {counts}, slowest {max(end['seconds'] for _, end in ends):.2f} s")
    for case, end in ends:
        fault = judge(case, end)
        if fault:
            found.append(f"{end['name']} ({case.why}): {fault}")
    return found


def judge(case: Case, end: dict[str, Any]) -> str:
    if end["state"] == "crashed":
        return str(end["said"])
    if end["state"] == "refused":
        said, path = end["said"], end["name"]
        if not said.startswith((path, path.removesuffix(".npz"))):
            return f"the sentence does not begin with the file: {said}"
        if len(said) > len(path) + 1000 or "Traceback" in said:
            return f"that is no sentence: {said}"
        return "" if case.expected is None or case.expected.refusal else f"refused: {said}"
    if case.expected is None:
        return "read, where it had to be refused"
    with np.load(end["name"] + ".read.npz") as read:
        # Not every version of pandas reads the last bit rightly.
        X, expected = read["X"], case.expected.X
        close = X.shape == expected.shape and np.allclose(X, expected, rtol=1e-15, atol=0)
        same = close and np.array_equal(read["y"], case.expected.y)
        return "" if same else f"read wrongly: {read['X'].tolist()} {read['y'].tolist()}"


@dataclass(frozen=True)
class Sample:
    """A random table, as numbers and as text that says them to the last bit."""

    X: np.ndarray
    y: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Sample:
        n, p = int(rng.integers(4, 12)), int(rng.integers(2, 6))
        X = rng.standard_normal((n, p)) * 10.0 ** rng.integers(-8, 9, (n, p))
        X[rng.random((n, p)) < 0.2] = 0
        X[:, 0] += 0.5  # whole numbers in a row are another matter: they could be an index
        y = np.where(rng.permutation(n) % 2, 1.0, 0.0)
        return cls(X, y)

    @property
    def names(self) -> list[str]:
        return [f"v{j}" for j in range(self.X.shape[1])]

    def cells(self, label: int) -> list[list[str]]:
        """Header and rows, with the label in this column."""
        rows = [[repr(float(v)) for v in row] for row in self.X]
        cells = [self.names, *rows]
        for row, end in zip(cells, ["y", *(f"{v:g}" for v in self.y)], strict=True):
            row.insert(label, end)
        return cells

    def csv(self, separator: str = ",", label: int = 0) -> str:
        return "".join(separator.join(row) + "\n" for row in self.cells(label))

    def svm(self) -> str:
        return "".join(
            f"{label:g} " + " ".join(f"{j}:{float(v)!r}" for j, v in enumerate(row, 1)) + "\n"
            for row, label in zip(self.X, self.y, strict=True)
        )

    def npz(self, rng: np.random.Generator) -> bytes:
        buffer = BytesIO()
        save = np.savez if rng.random() < 0.5 else np.savez_compressed
        arrays: dict[str, Any] = {"y": self.y}
        if rng.random() < 0.5:
            arrays["X"] = self.X
        else:
            from scipy import sparse

            X = sparse.csr_matrix(self.X)
            arrays |= {f"X_{part}": getattr(X, part) for part in ("data", "indices", "indptr")}
            arrays["X_shape"] = np.array(X.shape)
        save(buffer, **arrays)
        return buffer.getvalue()

    def expected(self, *, refusal: bool = False) -> Expected:
        return Expected(self.X, self.y, refusal)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def in_another_dress(rng: np.random.Generator) -> Case:
    """The same table: another separator, encoding, end of lines, quotes, blank lines, compression."""
    sample = Sample.draw(rng)
    separator = str(rng.choice([",", ";", "\t"]))
    cells = sample.cells(int(rng.integers(sample.X.shape[1] + 1)))
    if rng.random() < 0.5:
        cells = [[f'"{c}"' if rng.random() < 0.5 else c for c in row] for row in cells]
    end = str(rng.choice(["\n", "\r\n", "\r"]))
    rows = [separator.join(row) for row in cells]
    while rng.random() < 0.5:
        rows.insert(int(rng.integers(len(rows) + 1)), "")
    text = end.join(rows) + (end if rng.random() < 0.5 else "")
    if rng.random() < 0.3:
        text = f"sep={separator}{end}{text}"
    content = text.encode(str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-32"])))
    suffix = str(rng.choice(["", *COMPRESS]))
    content = COMPRESS[suffix](content) if suffix else content
    return Case(f"a.csv{suffix}", content, sample.expected(), "another dress")


#: Cells, and the number that each stands for (None: none that every program agrees on).
CELLS: dict[str, float | None] = {
    "1e5": 1e5, "+.5": 0.5, "1.": 1.0, '"3"': 3.0, " 7 ": 7.0, "-0": 0.0, "1E-3": 1e-3,
    "007": 7.0, "1e-400": 0.0,
    "1_000": None, '"1,5"': None, '"1,000"': None, "NA": None, "": None, "nan": None, "inf": None,
    "-Infinity": None, "1e999": None, "0x1": None, "\u0661": None, "\uff11": None, "1d3": None,
    "--1": None, "1 2": None, "$5": None, "5%": None, "TRUE": None, "\u22121": None, "1\u00a0000": None,
    "1\0": None, '"1': None, "'1'": None, "?": None, "1;2": None, "null": None, "1+2j": None,
}  # fmt: skip


def with_one_odd_cell(rng: np.random.Generator) -> Case:
    """One number is written in another way."""
    sample = Sample.draw(rng)
    X = sample.X.copy()
    i, j = int(rng.integers(1, X.shape[0])), int(rng.integers(X.shape[1]))
    cell = list(CELLS)[rng.integers(len(CELLS))]
    rows = [row.split(",") for row in sample.csv(label=0).splitlines()]
    rows[i + 1][j + 1] = cell
    value = CELLS[cell]
    X[i, j] = math.nan if value is None else value
    text = "\n".join(",".join(row) for row in rows) + "\n"
    expected = None if value is None else Expected(X, sample.y)
    return Case("a.csv", text.encode(), expected, f"the cell {cell!r}")


def with_another_structure(rng: np.random.Generator) -> Case:
    """A cell is missing or too many somewhere, an index, two labels, no names."""
    sample = Sample.draw(rng)
    cells = sample.cells(sample.X.shape[1])
    what = str(rng.choice(["less", "more", "index", "named index", "labels", "twice", "numbers"]))
    row = int(rng.integers(1, len(cells)))
    if what == "less":
        cells[row].pop()
    elif what == "more":
        cells[row].append("1")
    elif what.endswith("index"):
        name = "" if what == "index" else str(rng.choice(["id", "Index", "Unnamed: 0", "row_id"]))
        order = rng.permutation(len(cells))
        for k, line in enumerate(cells):
            line.insert(0, str(order[k]) if k else name)
    elif what == "labels":
        for k, line in enumerate(cells):
            line.insert(1, line[-1] if k else str(rng.choice(["label", "Target", "CLASS", "Y"])))
    elif what == "twice":
        cells[0][1] = cells[0][0]
    else:
        cells[0] = [str(j) for j in range(len(cells[0]))]
    text = "".join(",".join(line) + "\n" for line in cells)
    return Case("a.csv", text.encode(), None, what)


def with_bytes_changed(rng: np.random.Generator, content: bytes) -> bytes:
    """Flip bits, cut, repeat, drop or insert some bytes."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not found:
            break
        place = int(rng.integers(len(found)))
        how = int(rng.integers(6))
        if how < 2:
            found[place] ^= 1 << int(rng.integers(8))
        elif how == 2:
            found[place] = int(rng.integers(256))
        elif how == 3:
            del found[place : place + int(rng.integers(1, 9))]
        elif how == 4:
            found[place:place] = found[place : place + int(rng.integers(1, 30))]
        else:
            del found[max(1, place) :]
    return bytes(found)


def damaged_csv(rng: np.random.Generator) -> Case:
    """Text has no checksum: what is read has to be what pandas reads, too."""
    sample = Sample.draw(rng)
    content = with_bytes_changed(rng, sample.csv(label=sample.X.shape[1]).encode())
    return Case("a.csv", content, as_pandas_reads(content), "changed bytes of CSV")


def as_pandas_reads(content: bytes) -> Expected | None:
    """The table by pandas, in any separator that makes numbers of it; None where none does."""
    for separator in ",;\t":
        try:
            frame = pandas.read_csv(StringIO(content.decode(), newline=""), sep=separator)
        except (ValueError, OverflowError):  # its own errors, and that of the encoding
            continue
        columns = [str(c).strip() for c in frame.columns]
        labels = [j for j, name in enumerate(columns) if name.lower() in ("y", "label", "target")]
        label = labels[0] if len(labels) == 1 else len(columns) - 1
        y, X = frame.iloc[:, label], frame.drop(columns=frame.columns[label])
        numbers = all(kind.kind in "fiu" for kind in X.dtypes)
        if len(columns) > 1 and numbers and np.isfinite(X.to_numpy(float)).all() and len(X):
            labels_read = y.to_numpy() if y.dtype.kind in "fiu" else y.astype(str).to_numpy(str)
            exact = X.map(float) if len(X) else X
            return Expected(exact.to_numpy(float), np.char.strip(labels_read)
                            if labels_read.dtype.kind == "U" else labels_read.astype(float), True)  # fmt: skip
    return None


def damaged_svm(rng: np.random.Generator) -> Case:
    content = with_bytes_changed(rng, Sample.draw(rng).svm().encode())
    return Case("a.svm", content, as_the_format_says(content), "changed bytes of LIBSVM")


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def as_the_format_says(content: bytes) -> Expected | None:
    """Token by token; None where one of them is not as the format says."""
    rows, labels = [], []
    for line in re.split(r"\r\n|\n|\r", content.decode("utf-8", "replace")):
        tokens = re.split(r"[ \t\f\v]+", line.partition("#")[0].strip(" \t\f\v"))
        if tokens == [""]:
            continue
        pairs = [token.partition(":") for token in tokens[1:]]
        values = [tokens[0], *(value for _, _, value in pairs)]
        if not all(_NUMBER.fullmatch(v) and math.isfinite(float(v)) for v in values):
            return None
        if not all(re.fullmatch(r"[0-9]{1,6}", index) for index, _, _ in pairs):
            return None
        indices = [int(index) for index, _, _ in pairs]
        if any(b <= a for a, b in zip([0, *indices], indices, strict=False)):
            return None
        labels.append(float(tokens[0]))
        rows.append({index: float(value[2]) for index, value in zip(indices, pairs, strict=True)})
    if not rows or not any(rows):
        return None
    X = np.zeros((len(rows), max(max(row, default=0) for row in rows)))
    for i, row in enumerate(rows):
        for index, value in row.items():
            X[i, index - 1] = value
    return Expected(X, np.array(labels), True)


def damaged_npz(rng: np.random.Generator) -> Case:
    """Every byte of an array is under a checksum: the same arrays, or a sentence."""
    sample = Sample.draw(rng)
    content = sample.npz(rng)
    return Case(
        "a.npz", with_bytes_changed(rng, content), sample.expected(refusal=True), "damaged npz"
    )


def damaged_compression(rng: np.random.Generator) -> Case:
    sample = Sample.draw(rng)
    suffix = str(rng.choice(list(COMPRESS)))
    name, text = ("a.csv", sample.csv()) if rng.random() < 0.5 else ("a.svm", sample.svm())
    content = with_bytes_changed(rng, COMPRESS[suffix](text.encode()))
    if content.startswith(COMPRESS[suffix](b"")[:3]):
        expected = sample.expected(refusal=True)
    else:  # no longer compressed, by its first bytes: as text it is none
        expected = None
    return Case(name + suffix, content, expected, f"damaged {suffix}")


class Evil:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def stating(shape: tuple[int, ...], dtype: str, held: int) -> bytes:
    """An array whose header states more than it holds."""
    head = BytesIO()
    stated = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(head, stated)
    return head.getvalue() + bytes(held)


def archive(**members: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in members.items():
            content.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def hostile(rng: np.random.Generator, trace: Path) -> list[Case]:
    """Files that ask for memory, for time, or for their own code to be run."""
    big = int(rng.integers(10**9, 2 * 10**9))
    labels = stating((2,), "<f8", 16)
    evil = np.empty(1, dtype=object)
    evil[0] = Evil(trace)
    loaded = BytesIO()
    np.savez(loaded, X=evil, y=evil)
    deep = (
        b"{'descr':"
        + b"(" * 5000
        + b"'<f8'"
        + b")" * 5000
        + b",'fortran_order':False,'shape':(1,)}"
    )
    nested = b"\x93NUMPY\x02\x00" + len(deep).to_bytes(4, "little") + deep
    zeros = bytes(1 << 20)
    bomb = gzip.compress(b"1 1:1\n" + b"\n" * (1 << 23))
    endless = gzip.compress(b"1" * (1 << 29))
    return [
        Case("a.svm", f"1 1:1\n-1 {big}:1\n".encode(), None, "one large feature"),
        Case("a.svm", f"1 1:1\n-1 {big}:1\n".encode(), None, "asked for", {"features": big}),
        Case("a.svm", b"1 1:1\n-1 " + b"9" * 5000 + b":1\n", None, "a feature of 5000 digits"),
        Case("a.svm", b"1 1:" + b"1" * 10**6 + b"x\n", None, "a value of a million digits"),
        Case("a.csv", b"a,y\n" + b"1" * 10**6 + b"x,1\n", None, "a cell of a million digits"),
        Case("a.csv", b'a,y\n"' + b"1,0\n" * 10**5, None, "a quote that is never closed"),
        Case("a.csv", b",".join([b"a"] * 10**5) + b"\n", None, "names alike"),
        Case("a.csv.gz", endless, None, "a line of half a gigabyte"),
        Case("a.svm.gz", bomb, Expected(np.ones((1, 1)), np.ones(1)), "8 million blank lines"),
        Case("a.npz", archive(X=stating((big, 10**6), "<f8", 64), y=labels), None, "8 petabytes"),
        Case("a.npz", archive(X=stating((2**40,), "|V0", 0), y=labels), None, "no bytes, often"),
        Case("a.npz", archive(X=stating((2, -1), "<f8", 64), y=labels), None, "negative"),
        Case("a.npz", archive(X=stating((2**33, 2**33), "<f8", 64), y=labels), None, "2^66"),
        Case("a.npz", archive(X=nested, y=labels), None, "a deep header"),
        Case("a.npz", archive(X=b"\x93NUMPY\x09\x00", y=labels), None, "version 9"),
        Case("a.npz", archive(X=labels, y=labels)[:-22], None, "no directory"),
        Case("a.npz", loaded.getvalue(), None, "a pickle in an array"),
        Case("a.npz", pickle.dumps(Evil(trace)), None, "a pickle"),
        Case("a.csv", pickle.dumps(Evil(trace)), None, "a pickle called CSV"),
        Case("a.npz.xz", lzma.compress(archive(X=zeros, y=zeros)), None, "no arrays"),
        Case("a.csv", rng.bytes(int(rng.integers(1, 5000))), None, "random bytes"),
        Case("a.svm", rng.bytes(int(rng.integers(1, 5000))), None, "random bytes"),
        Case("a.npz", rng.bytes(int(rng.integers(1, 5000))), None, "random bytes"),
        Case("a.csv.gz", b"\x1f\x8b" + rng.bytes(200), None, "random bytes"),
        Case("a.csv.xz", b"\xfd7zXZ\x00" + rng.bytes(200), None, "random bytes"),
        Case("a.csv.bz2", b"BZh9" + rng.bytes(200), None, "random bytes"),
    ]


MUTATIONS = {
    "another dress": in_another_dress,
    "odd cell": with_one_odd_cell,
    "structure": with_another_structure,
    "CSV": damaged_csv,
    "LIBSVM": damaged_svm,
    "npz": damaged_npz,
    "compression": damaged_compression,
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_mutated_files_are_read_rightly_or_refused(
    tmp_path: Path, draws: Callable[[int], list[int]], kind: str
) -> None:
    cases = [MUTATIONS[kind](np.random.default_rng(seed)) for seed in draws(1000)]
    found = faults(tmp_path, cases)
    assert not found, f"{len(found)} of {len(cases)}: " + "\n".join(found[:10])


def test_columns_in_any_order_are_the_same_table(
    tmp_path: Path, draws: Callable[[int], list[int]]
) -> None:
    """Against a training file: permuted columns fit, missing and additional ones are refused."""
    cases = []
    for k, seed in enumerate(draws(500)):
        rng = np.random.default_rng(seed)
        sample = Sample.draw(rng)
        train = tmp_path / f"train{k}.csv"
        train.write_text(sample.csv(label=int(rng.integers(sample.X.shape[1] + 1))))
        frame = pandas.read_csv(train, dtype=str)
        frame = frame[rng.permutation(frame.columns)]
        what = str(rng.choice(["same", "same", "missing", "additional", "renamed"]))
        victim = str(rng.choice(sample.names))
        if what == "missing":
            frame = frame.drop(columns=victim)
        elif what == "additional":
            frame.insert(int(rng.integers(frame.shape[1])), "more", 0.5)
        elif what == "renamed":
            frame = frame.rename(columns={victim: victim.upper()})
        expected = sample.expected() if what == "same" else None
        content = frame.to_csv(index=False).encode()
        cases.append(Case("val.csv", content, expected, what, {"label": "y"}, str(train)))
    found = faults(tmp_path, cases)
    assert not found, f"{len(found)} of {len(cases)}: " + "\n".join(found[:10])


def test_hostile_files_end_in_a_sentence(tmp_path: Path, draws: Callable[[int], list[int]]) -> None:
    """Within 4 GiB of address space and a minute each, and no code of theirs runs."""
    trace = tmp_path / "was-here"
    cases = [case for seed in draws(4) for case in hostile(np.random.default_rng(seed), trace)]
    found = faults(tmp_path, cases)
    assert not found, "\n".join(found)
    assert not trace.exists()


def test_damaged_models_are_refused_or_the_same(
    tmp_path: Path, draws: Callable[[int], list[int]]
) -> None:
    from bilevel import io

    path = tmp_path / "m.npz"
    for seed in draws(1000):
        rng = np.random.default_rng(seed)
        coef = rng.standard_normal(int(rng.integers(1, 9)))
        model = io.LinearClassifier(coef, 0.25, np.ones(1), np.array(["no", "yes"]))
        io.save_model(path, model)
        path.write_bytes(with_bytes_changed(rng, path.read_bytes()))
        try:
            found = io.load_model(path)
        except io.BadFileError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
        else:
            assert np.array_equal(found.coef, coef)
            assert (found.intercept, found.lam.tolist()) == (0.25, [1.0])
            assert found.classes.tolist() == ["no", "yes"]
