"""Files as people have them: read as pandas reads them, or refused in one sentence with its cure."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas
import pytest
from click.testing import CliRunner
from scipy import sparse

import bilevel
from bilevel import io
from bilevel.cli._app import app
from bilevel.io import load_model

ROWS = [f"{i * 0.5},{(i * 7) % 5 + 0.25},{i % 2}" for i in range(1, 9)]
CSV = "\n".join(["a,b,y", *ROWS]) + "\n"
SVM = "1 1:0.5 3:2\n-1 2:1\n1 1:1 2:4\n"
EXPECTED = pandas.read_csv(BytesIO(CSV.encode()))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


RIGHT = {
    "a.csv": CSV,
    "marked.csv": b"\xef\xbb\xbf" + CSV.encode(),
    "utf-16.csv": CSV.encode("utf-16"),
    "utf-32.csv": CSV.encode("utf-32"),
    "excel.csv": "sep=;\r\n" + CSV.replace(",", ";").replace("\n", "\r\n"),
    "mac.csv": CSV.replace("\n", "\r"),
    "blank.csv": "\n \n" + CSV.replace("\n", "\n\n"),
    "spaces.csv": CSV.replace(",", " , "),
    "tabs.tsv": CSV.replace(",", "\t"),
    "quoted.csv": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in CSV.splitlines()
    ),
    "a.csv.gz": gzip.compress(CSV.encode()),
    "a.csv.bz2": bz2.compress(CSV.encode()),
    "a.csv.xz": lzma.compress(CSV.encode()),
    "two.csv.bz2": bz2.compress(CSV[:40].encode()) + bz2.compress(CSV[40:].encode()),
    "hidden.csv": gzip.compress(CSV.encode()),
    "plain.csv.gz": CSV,
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_table_in_another_dress_is_the_same_table(tmp_path: Path, name: str) -> None:
    table = io.read(write(tmp_path / name, RIGHT[name])).train
    np.testing.assert_array_equal(table.X, EXPECTED[["a", "b"]])
    np.testing.assert_array_equal(table.y, EXPECTED["y"])
    assert table.names == ("a", "b")
    assert table.label_name == "y"


@pytest.mark.parametrize(
    ("name", "content"),
    [  # no bytes among them that depend on the day: they make the names of the tests
        ("a.svm", SVM),
        ("marked.svm", b"\xef\xbb\xbf" + SVM.encode()),
        ("utf-16.svm", SVM.encode("utf-16")),
        ("mac.svm", SVM.replace("\n", "\r")),
        ("latin.svm", SVM.replace("\n", " # caf\xe9\n").encode("latin-1")),
        ("qid.svm", SVM.replace("1 1:", "1 qid:2 1:")),
        ("a.svm.xz", lzma.compress(SVM.encode())),
    ],
)
def test_libsvm_in_another_dress(tmp_path: Path, name: str, content: str | bytes) -> None:
    table = io.read(write(tmp_path / name, content)).train
    np.testing.assert_array_equal(table.X.toarray(), [[0.5, 0, 2], [0, 1, 0], [1, 4, 0]])
    np.testing.assert_array_equal(table.y, [1, -1, 1])
    np.testing.assert_array_equal(table.lines, [1, 2, 3])


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_npz_is_read_compressed_once_more(tmp_path: Path, compress) -> None:
    buffer = BytesIO()
    np.savez(buffer, X=np.eye(2), y=np.array([0, 1]), feature_names=np.array(["a", "b"]))
    table = io.read(write(tmp_path / "a.npz.gz", compress(buffer.getvalue()))).train
    np.testing.assert_array_equal(table.X, np.eye(2))
    assert table.names == ("a", "b")


def changed(old: str, new: str) -> str:
    return CSV.replace(old, new, 1)


NO_INDEX = "\n".join(f"{i},{row}" for i, row in enumerate(ROWS))
REFUSED: dict[str, tuple[str | bytes, int | None, str, str]] = {
    "latin-1": (changed("a", "gr\xf6\xdfe").encode("latin-1"), 1, "0xf6 is no UTF-8", "iconv"),
    "latin-1 below": (changed("1.5,", "\xe9,").encode("latin-1"), 4, "0xe9 is no UTF-8", "iconv"),
    "utf-16 unmarked": (CSV.encode("utf-16-le"), 1, "zero byte", "UTF-8"),
    "cut utf-16": (CSV.encode("utf-16")[:-1], None, "no UTF-16", "UTF-8"),
    "underscore": (changed("1.0,", "1_000,"), 3, "'1_000', no number", "without underscores"),
    "arabic digit": (changed("1.0,", "\u0661,"), 3, "no number", "Encode"),
    "decimal comma": (CSV.replace(",", ";").replace(".", ","), 2, "'0,5', no number", "1.5 for"),
    "thousands": (changed("1.0,", '"1,000",'), 3, "'1,000', no number", "marks for thousands"),
    "open quote": (changed("1.0,", '"1.0,'), 3, "quotes are not closed", "quotes of this line"),
    "quote in the header": (changed("a,b", '"a,b'), 1, "quotes are not closed", "quotes"),
    "quote over lines": (
        changed("1.0,", '"1.0,').replace("\n2.0,", '\n2.0",'),
        3,
        "goes on to line 5",
        "Close",
    ),
    "two labels": (changed("a,b,y", "y,b,label"), 1, "'y' and 'label' could each", "--label"),
    "two names": (changed("a,b", "a,a"), 1, "two columns are called 'a'", "its own name"),
    "no name": (changed("a,b", "a,"), 1, "column 2 has no name", "Name it"),
    "trailing separator": (
        CSV.replace("\n", ",\n"),
        1,
        "column 4 has no name",
        "ends of the lines",
    ),
    "index of pandas": (
        EXPECTED.to_csv(),
        1,
        "column 1 has no name",
        "index=False",
    ),
    "named index": (
        EXPECTED.rename_axis("id").to_csv(),
        1,
        "'id' numbers the rows",
        "another name",
    ),
    "index without header": (NO_INDEX, 1, "the first column numbers the rows", "Leave it out"),
    "header of numbers": (
        EXPECTED.set_axis([0, 1, 2], axis=1).to_csv(index=False),
        1,
        "it reads '0,1,2'",
        "--header or --no-header",
    ),
    "header of years": (changed("a,b,y", "2019,2024,y"), 1, "'y' for a label", "--header"),
    "header of other numbers": (
        changed("a,b,y", "400,500,9"),
        1,
        "it reads '400,500,9'",
        "--header",
    ),
    "a row that could be a header": (
        changed("a,b,y", "?,5.0,1"),
        1,
        "numbers and '?'",
        "--no-header",
    ),
    "a label that could be a name": (
        changed("a,b,y", "1.5,2.5,O"),
        1,
        "'O' for a label",
        "--header",
    ),
    "missing label": (
        CSV.replace(",1\n", ",NA\n", 1),
        2,
        "is missing: row 1 has 'NA'",
        "leave it out",
    ),
    "zip": (b"PK\x03\x04" + bytes(40), None, "this is a zip archive", "--format npz"),
    "array": (b"\x93NUMPY" + bytes(40), None, "a single array of NumPy", "numpy.savez"),
    "comment": ("# made by hand\n" + CSV, 1, "one column only", "separated by"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_be_misread_is_refused(tmp_path: Path, case: str) -> None:
    content, line, problem, cure = REFUSED[case]
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(io.BadFileError) as caught:
        io.read(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)
    assert problem in caught.value.problem
    assert cure in caught.value.cure


def test_header_is_as_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "2019,2020,2021\n1.5,2.5,0\n2.5,1,1\n")
    named = io.read(path, io.ReadOptions(header=True)).train
    assert (named.shape, named.names) == ((2, 2), ("2019", "2020"))
    rows = io.read(path, io.ReadOptions(header=False)).train
    assert (rows.shape, rows.names) == ((3, 2), None)


@pytest.mark.parametrize(
    "text",
    [
        "1.5,2.5,y\n2,3.5,n\n1,1.5,y\n2,2,n\n",  # labels that are called as a label's column
        "3,7,1\n" + "\n".join(ROWS),  # whole numbers in the first row
        "1.5,M\n2,B\n1,M\n",
        "1,0\n2,1\n3,0\n4,1\n5,0\n",  # one feature that counts
    ],
)
def test_a_first_row_that_is_one_is_kept(tmp_path: Path, text: str) -> None:
    table = io.read(write(tmp_path / "a.csv", text)).train
    expected = pandas.read_csv(BytesIO(text.encode()), header=None)
    np.testing.assert_array_equal(table.X, expected.iloc[:, :-1])
    np.testing.assert_array_equal(table.y, expected.iloc[:, -1])


@pytest.mark.parametrize(
    ("text", "line", "problem", "cure"),
    [
        (SVM.replace("0.5", "1_000"), 1, "feature 1 has the value '1_000'", "finite number"),
        (SVM.replace("-1 ", "-1_0 "), 2, "the label is '-1_0'", "finite number"),
        (SVM.replace("2:4", "+2:4"), 3, "'+2:4' is no index:value pair", "index:value"),
        (SVM.replace("0.5", "1e999"), 1, "the value '1e999'", "finite number"),
        (SVM + "1 2000000000:1\n", 4, "makes 2000000000 features, for 6 numbers", "--features 2"),
        (SVM + "1 20000000000:1\n", 4, "is beyond 2147483647", "from 1 on"),
        (SVM.replace("3:2", "3:"), 1, "feature 3 has the value ''", "leave the pair out"),
        (CSV, 1, "the label is 'a,b,y'", "--format csv"),
        ("1\n-1\n", None, "the rows hold no features", "--features"),
    ],
)
def test_libsvm_numbers_are_those_of_the_format(
    tmp_path: Path, text: str, line: int | None, problem: str, cure: str
) -> None:
    with pytest.raises(io.BadFileError) as caught:
        io.read(write(tmp_path / "a.svm", text))
    assert caught.value.line == line
    assert problem in caught.value.problem
    assert cure in caught.value.cure


def npz(**arrays: object) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


CSR = {"X_data": [1.0, 2.0], "X_indices": [0, 1], "X_indptr": [0, 1, 2], "X_shape": [2, 2]}


NPZ = [
    (npz(X=np.array([[None]]), y=[0]), "no .npz archive of plain arrays"),
    (npz(X=[[1.0]], y=np.array([None])), "no .npz archive of plain arrays"),
    (npz(X=[[1j]], y=[0]), "X has the dtype complex128"),
    (npz(X=[[1.0]], y=np.array(["2020"], "M8[Y]")), "y has the dtype datetime64"),
    (npz(**CSR | {"X_indices": [0.5, 1]}, y=[0, 1]), "X_indices has the dtype float64"),
    (npz(**CSR | {"X_shape": [2.5, 2]}, y=[0, 1]), "X_shape has the dtype float64"),
    (npz(**CSR | {"X_shape": [2, 2**62]}, y=[0, 1]), "features"),
    (npz(**CSR | {"X_shape": np.array([2, 2**63], "u8")}, y=[0, 1]), "do not fit each other"),
    (npz(X=[[1.0, 2]], y=[0], feature_names=["a"]), "Store 2 names as text"),
    (npz(X=[[1.0, 2]], y=[0], feature_names=["a", "a"]), "two columns are called 'a'"),
    (npz(X=np.eye(3), y=[0, 1, 1])[:-20], "no .npz archive of plain arrays"),
    # The shape in the header alone: NumPy's own reader returns two rows.
    (npz(X=np.eye(3), y=[0, 1, 1]).replace(b"(3, 3)", b"(2, 3)"), "no .npz archive"),
]


@pytest.mark.parametrize(("content", "said"), NPZ, ids=map(str, range(len(NPZ))))
def test_npz_that_holds_what_it_should_not(tmp_path: Path, content: bytes, said: str) -> None:
    path = write(tmp_path / "a.npz", content)
    with pytest.raises(io.BadFileError) as caught:
        io.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_array_that_states_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    head = BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (2, 2)}
    np.lib.format.write_array_header_1_0(head, shape)
    for size, said in ((24, "no .npz archive"), (40, "more bytes than its shape")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("X.npy", head.getvalue() + bytes(size))
            archive.writestr("y.npy", head.getvalue() + bytes(32))
        with pytest.raises(io.BadFileError, match=said):
            io.read(path)


def second(compress) -> bytes:
    """A second stream, damaged from its first byte."""
    return b"BZx" + compress(SVM.encode())[3:]


DAMAGES = {
    "cut gzip": lambda text: gzip.compress(text)[:-9],
    "gzip and more": lambda text: gzip.compress(text) + b"more",
    "flipped gzip": lambda text: gzip.compress(text)[:30] + b"\xff\xff" + gzip.compress(text)[32:],
    "gzip twice": lambda text: gzip.compress(gzip.compress(text)),
    "cut bzip2": lambda text: bz2.compress(text)[:-9],
    "bzip2, second stream": lambda text: bz2.compress(text) + second(bz2.compress),
    "cut xz": lambda text: lzma.compress(text)[:-9],
    "xz and more": lambda text: lzma.compress(text) + b"more",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", [".csv", ".svm", ".npz"])
def test_damaged_compression_is_said(tmp_path: Path, damage: str, suffix: str) -> None:
    content = {
        ".csv": CSV.encode(),
        ".svm": SVM.encode(),
        ".npz": npz(X=np.eye(2), y=[0, 1]),
    }[suffix]
    path = write(tmp_path / f"a{suffix}.gz", DAMAGES[damage](content))
    with pytest.raises(io.BadFileError, match="damaged or cut off|compressed twice"):
        io.read(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for name, said in (
        ("pipe.csv", "a pipe or a device"),
        ("/dev/zero", "a pipe or a device"),
        ("loop.csv", "can't be reached"),
        ("x" * 300, "can't be reached"),
        ("a\0b.csv", "can't be reached"),
    ):
        with pytest.raises(io.BadFileError, match=said):
            io.read(tmp_path / name)


def test_labels_that_look_alike_are_told_apart() -> None:
    """1000001 and 1000002 were both called 1e+06, and --positive took the first of them."""
    table = io.Table(np.ones((2, 1)), np.array([1000001, 1000002]), "t.csv")
    labels = io.BinaryLabels.fit(table, "1000002")
    assert labels.apply(table).tolist() == [-1, 1]


def test_labels_of_another_kind_are_no_negatives() -> None:
    """Against --positive M all of 0 and 1 became -1; one stray label makes text of a column."""
    text = io.Table(np.ones((3, 1)), np.array(["M", "B", "C"]), "t.csv")
    numbers = io.Table(np.ones((2, 1)), np.array([0.0, 1.0]), "v.csv")
    with pytest.raises(io.BadFileError, match=r"v\.csv: its labels are numbers, as 0, but .* M"):
        io.BinaryLabels.fit(text, "M").apply(numbers)
    stray = io.Table(np.ones((2, 1)), np.array(["1", "O"]), "s.csv", lines=np.array([2, 3]))
    with pytest.raises(io.BadFileError, match=r"s\.csv, line 3: its labels are text, as O, but"):
        io.BinaryLabels.fit(numbers).apply(stray)


@pytest.mark.parametrize("name", ["a.csv", "a.svm", "a.npz"])
def test_nothing_compressed_is_nothing(tmp_path: Path, name: str) -> None:
    for content in (gzip.compress(b""), gzip.compress(b"\n# nothing\n")):
        with pytest.raises(io.BadFileError, match="no rows|one column|no .npz archive"):
            io.read(write(tmp_path / name, content))


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    train = io.read(write(tmp_path / "a.csv", CSV)).train
    other = write(tmp_path / "b.csv", EXPECTED[["y", "b", "a"]].to_csv(index=False))
    matched = io.same_features(io.read(other).train, train)
    np.testing.assert_array_equal(matched.X, train.X)
    assert matched.names == train.names
    for columns, said in (
        (["a", "y"], "1 features but .* has 2: it lacks 'b'"),
        (["a", "c", "y"], "it lacks 'b' and has besides 'c'"),
        (["a", "b", "c", "y"], "3 features but .* has 2: it has besides 'c'"),
    ):
        wrong = EXPECTED.assign(c=1.0)[columns].to_csv(index=False)
        with pytest.raises(io.BadFileError, match=said):
            io.same_features(io.read(write(tmp_path / "c.csv", wrong)).train, train)
    bare = io.read(write(tmp_path / "d.csv", "\n".join(ROWS))).train
    for one, two in ((bare, train), (train, bare)):
        with pytest.raises(io.BadFileError, match=r"d\.csv has no names but .*a\.csv has"):
            io.same_features(one, two)


def run(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def frame() -> pandas.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 4)) * [1, 10, 0.1, 3]
    y = (X @ [1.0, 0.1, 0, 0] + rng.standard_normal(120) > 0).astype(int)
    return pandas.DataFrame(X, columns=list("abcd")).assign(outcome=y)


def test_held_out_columns_in_another_order_give_the_same_model(
    tmp_path: Path, frame: pandas.DataFrame
) -> None:
    """The last column is the label of the training file: it is found by its name in the others."""
    frame[:60].to_csv(tmp_path / "train.csv", index=False)
    shuffled = frame[["outcome", "d", "b", "a", "c"]]
    shuffled[60:].to_csv(tmp_path / "val.csv", index=False)
    saved = tmp_path / "m.npz"
    result = run("tune", tmp_path / "train.csv", "--val", tmp_path / "val.csv", "--save", saved)
    assert result.exit_code == 0, result.output
    X, y = frame[list("abcd")].to_numpy(), 2.0 * frame["outcome"].to_numpy() - 1
    expected = bilevel.minimize(bilevel.logistic_regression(X[:60], y[:60], X[60:], y[60:]))
    model = load_model(saved)
    np.testing.assert_allclose(model.lam, expected.lam, rtol=1e-6)
    np.testing.assert_allclose(model.coef, expected.x, rtol=1e-6)
    assert model.features is not None
    assert model.features.tolist() == list("abcd")


def test_a_saved_model_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    io.save_model(path, io.LinearClassifier(np.ones(2), 0.0, np.zeros(1), np.array(["a", "b"])))
    good = path.read_bytes()
    for content in (good[:-9], good.replace(b"(2,)", b"(1,)"), b"text", npz(coef=[1.0])):
        with pytest.raises(io.BadFileError, match="no model that bilevel saved"):
            load_model(write(path, content))


def test_what_is_planted_beside_a_model_is_not_touched(tmp_path: Path) -> None:
    victim = write(tmp_path / "victim", "precious")
    (tmp_path / "m.npz.part").symlink_to(victim)
    io.save_model(
        tmp_path / "m.npz",
        io.LinearClassifier(np.ones(1), 0.0, np.zeros(1), np.array(["a", "b"])),
    )
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--val", "1.5"], "--val must be a file, or a fraction between 0 and 1, got 1.5"),
        (["--test", "0"], "--test must be a file, or a fraction between 0 and 1, got 0"),
        (["--val", "pipe"], "pipe: this is a pipe or a device"),
        (["--val", "x" * 300 + ".csv"], "can't be reached"),
        (["--save", "pipe"], "--save pipe: this is no regular file"),
        (["--log", "pipe"], "--log pipe: this is no regular file"),
        (["--checkpoint", "pipe"], "--checkpoint pipe: this is no regular file"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    write(Path("a.csv"), CSV)
    result = run("tune", "a.csv", *words)
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_one_result_that_cannot_be_written_spares_the_others(
    tmp_path: Path, frame: pandas.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(result: object, path: object) -> None:
        raise ValueError("no fonts")

    monkeypatch.setattr("bilevel.cli._tune.save_plot", fail)
    frame.to_csv(tmp_path / "a.csv", index=False)
    saved = tmp_path / "m.npz"
    result = run("tune", tmp_path / "a.csv", "--plot", tmp_path / "p.svg", "--save", saved)
    assert result.exit_code == 1
    assert "p.svg could not be written: no fonts" in result.output
    assert load_model(saved).coef.shape == (4,)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")  # noqa: PTH110
def test_a_log_on_a_full_disk_does_not_end_the_run(tmp_path: Path, frame: pandas.DataFrame) -> None:
    frame.to_csv(tmp_path / "a.csv", index=False)
    saved = tmp_path / "m.npz"
    result = run("tune", tmp_path / "a.csv", "--log", "/dev/full", "--save", saved)
    assert result.exit_code == 1, result.output  # a result was not written, the model was
    assert result.output.count("the log /dev/full could not be written: No space left") == 1
    assert load_model(saved).coef.shape == (4,)


def test_sparse_archives_are_matched_by_name(tmp_path: Path) -> None:
    X = sparse.csr_matrix([[1.0, 0, 2], [0, 3, 0]])
    y = np.array([0, 1])
    tables = [
        io.Table(X, y, "a.npz", names=("a", "b", "c")),
        io.Table(X[:, [2, 0, 1]], y, "b.npz", names=("c", "a", "b")),
    ]
    found = io.same_features(tables[1], tables[0]).X
    np.testing.assert_array_equal(found.toarray(), X.toarray())


BIG = 2**53 + 1


def big_labels(folder: Path, kind: str, labels: list[int]) -> Path:
    """Eight rows whose labels are two integers that are one in float64."""
    rows = [(i / 8, label) for i, label in enumerate(labels)]
    if kind == "csv":
        return write(folder / "b.csv", "a,y\n" + "".join(f"{x},{y}\n" for x, y in rows))
    if kind == "svm":
        return write(folder / "b.svm", "".join(f"{y} 1:{x + 1}\n" for x, y in rows))
    X = np.array([[x] for x, _ in rows])
    return write(folder / "b.npz", npz(X=X, y=np.array(labels, dtype=kind)))


@pytest.mark.parametrize("kind", ["csv", "svm", "int64", "uint64"])
def test_labels_beyond_2_to_the_53_are_exact(tmp_path: Path, kind: str) -> None:
    """9007199254740993 was taken for 9007199254740992, and so the other class was +1."""
    labels = [BIG, BIG - 1] * 4
    table = io.read(big_labels(tmp_path, kind, labels)).train
    assert [int(v) for v in table.y] == labels
    for positive in (BIG, BIG - 1):
        expected = [1.0 if label == positive else -1.0 for label in labels]
        for text in (str(positive), f"{positive}.0"):
            assert io.BinaryLabels.fit(table, text).apply(table).tolist() == expected
    with pytest.raises(io.BadFileError, match=f"the labels are {BIG - 1} and {BIG}, and"):
        io.BinaryLabels.fit(table)
    with pytest.raises(io.BadFileError, match="no row has the label"):
        io.BinaryLabels.fit(table, str(BIG + 1))


def test_labels_are_exact_from_one_file_to_another() -> None:
    """Whatever dtype each file has; the integers of Python say what is right."""

    def table(values: list, dtype: str) -> io.Table:
        return io.Table(np.ones((len(values), 1)), np.array(values, dtype=dtype), "v.npz")

    for dtype in ("int64", "uint64"):
        labels = io.BinaryLabels.fit(table([BIG, BIG - 1, 7], dtype), str(BIG))
        for other in ("int64", "uint64"):
            assert labels.apply(table([BIG - 1, BIG, 7], other)).tolist() == [-1, 1, -1]
        assert labels.apply(table([BIG - 1, 7], "float64")).tolist() == [-1, -1]
        with pytest.raises(io.BadFileError, match=f"the label {BIG + 1} is none of"):
            labels.apply(table([BIG + 1, 7], dtype))
    train = table([2.0**53, 5, 7], "float64")
    with pytest.raises(io.BadFileError, match="no row has the label"):
        io.BinaryLabels.fit(train, str(BIG))
    labels = io.BinaryLabels.fit(train, str(BIG - 1))
    assert labels.apply(table([5, BIG - 1], "int64")).tolist() == [-1, 1]
    with pytest.raises(io.BadFileError, match=f"the label {BIG} is none of"):
        labels.apply(table([BIG - 1, BIG], "int64"))
    small = io.BinaryLabels.fit(table([1, 2, 300], "int64"), "300")
    with pytest.raises(io.BadFileError, match="the label 44 is none of"):  # 300 wraps to 44
        small.apply(table([1, 44], "uint8"))
    truths = io.BinaryLabels.fit(table([0, 1, 2], "int64"), "2")
    assert truths.apply(table([True, False, True], "bool")).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("label", ["9007199254740993.5", "18446744073709551617", "1e300"])
@pytest.mark.parametrize("suffix", ["csv", "svm"])
def test_labels_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, label: str, suffix: str
) -> None:
    text = f"a,y\n1,0.5\n2,{label}\n3,1\n" if suffix == "csv" else f"0.5 1:1\n1 1:1\n{label} 1:2\n"
    with pytest.raises(io.BadFileError, match=f"line 3: the label {label} has more digits"):
        io.read(write(tmp_path / f"a.{suffix}", text))


def test_decimals_that_round_to_one_number_are_two_labels(tmp_path: Path) -> None:
    for text, refused in (("0.10000000000000000001", True), ("0.10000000000000000", False)):
        path = write(tmp_path / "a.csv", f"a,y\n1,0.1000000000000000\n2,{text}\n3,1\n")
        if refused:
            with pytest.raises(io.BadFileError, match="line 3: .* more digits than are told apart"):
                io.read(path)
        else:
            assert io.read(path).train.y.tolist() == [0.1, 0.1, 1]


def test_labels_of_bytes_or_of_long_doubles_name_the_file(tmp_path: Path) -> None:
    for y, said in (
        (np.array([b"\xff", b"a"]), "y holds bytes that are no UTF-8"),
        (np.array([1, 2], dtype=np.longdouble), "y has the dtype float128"),
    ):
        if said.endswith("float128") and y.dtype.itemsize == 8:
            continue
        with pytest.raises(io.BadFileError, match=rf"a\.npz: {said}"):
            io.read(write(tmp_path / "a.npz", npz(X=np.eye(2), y=y)))


@pytest.mark.parametrize(
    ("text", "line", "header"),
    [
        ("a,b,y\n1,2,0\n,,\n2,1,1\n", 3, None),
        ("a\tb\ty\n1\t2\t0\n2\t1\t1\n\t\t\n", 4, None),
        ("a;b;y\n1;2;0\n ; ; \n", 3, None),
        (",,\n1,2,0\n2,1,1\n", 1, False),
        (",,\n1,2,0\n2,1,1\n", 1, None),
    ],
)
def test_a_row_of_separators_is_a_row_without_values(
    tmp_path: Path, text: str, line: int, header: bool | None
) -> None:
    """pandas reads it as NaN in all columns; it was left out in silence."""
    with pytest.raises(io.BadFileError, match=f"line {line}: column .* has no (value|name)"):
        io.read(write(tmp_path / "a.csv", text), io.ReadOptions(io.Format.CSV, header=header))


def test_lines_of_blanks_are_no_rows(tmp_path: Path) -> None:
    text = "a,y\n1,0\n\t\n  \n2,1\n"
    assert io.read(write(tmp_path / "a.csv", text)).train.shape == (2, 1)


def test_a_label_that_no_header_names_lists_the_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", CSV)
    with pytest.raises(
        io.BadFileError, match=r"no column 'outcome'\. Give --label one of: numbers 0"
    ):
        io.read(path, io.ReadOptions(label="outcome", header=False))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.csv", "--features", "3"], "--features is an option of libsvm files, and a.csv as csv"),
        (["a.csv", "--zero-based"], "--zero-based is an option of libsvm files"),
        (["a.npz", "--no-header"], "--header/--no-header is an option of csv files, and a.npz as"),
        (["a.svm", "--label", "y"], "--label is an option of csv files"),
        (["breast_cancer", "--label", "y"], "and no file is read"),
        (["digits", "--format", "csv"], "--format is of files, and digits is none"),
    ],
)
def test_options_of_another_format_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.csv"), CSV)
    write(Path("a.svm"), SVM)
    write(Path("a.npz"), npz(X=np.eye(2), y=[0, 1]))
    result = run("tune", *words)
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_options_of_one_file_spare_another_of_another_format(tmp_path: Path) -> None:
    train = write(tmp_path / "a.csv", "\n".join(ROWS))
    X, y = EXPECTED[["a", "b"]].to_numpy(), EXPECTED["y"].to_numpy()
    val = write(tmp_path / "v.npz", npz(X=X, y=y))
    result = run("tune", train, "--no-header", "--label", "2", "--val", val, "--max-iter", "2")
    assert result.exit_code == 0, result.output
    with pytest.raises(io.BadFileError, match="read as npz, but header is an option of csv"):
        io.read(val, io.ReadOptions(header=True))


def labelled(*labels: object, source: str = "t.csv") -> io.Table:
    return io.Table(np.ones((len(labels), 1)), np.array(labels), source)


@pytest.mark.parametrize(
    ("train", "positive", "other", "unknown"),
    [
        (("yes", "no"), "yes", ("Yes", "No"), "Yes"),
        (("yes", "no"), "yes", ("no", "yes "), "yes "),
        ((0, 1), "1", (1, 2), "2"),
        ((1, 2), "2", (0, 1), "0"),
        ((3, 5, 7), "5", (5, 9), "9"),
    ],
)
def test_a_label_that_training_never_had_is_no_negative(
    train: tuple, positive: str, other: tuple, unknown: str
) -> None:
    """All of them became -1, and the accuracy of the same rows was another one."""
    labels = io.BinaryLabels.fit(labelled(*train), positive)
    said = f"v.csv: the label {unknown} is none of the training rows' .*Write the labels as the"
    with pytest.raises(io.BadFileError, match=said):
        labels.apply(labelled(*other, source="v.csv"))
    assert labels.apply(labelled(*train)).tolist() == [
        1.0 if str(label) == positive else -1.0 for label in train
    ]


def test_one_number_in_two_ways_is_no_two_classes() -> None:
    with pytest.raises(io.BadFileError, match=r"the labels 1 and 1\.0 are one number"):
        io.BinaryLabels.fit(labelled("1", "1.0", "none of them"), "1")


def test_the_labels_of_a_part_are_counted_the_rarest_first() -> None:
    table = labelled("no", "no", "unknown", "yes", "no")
    labels = io.BinaryLabels.fit(table, "yes")
    assert labels.counts(table) == "+1: yes (1); -1: unknown (1), no (3)"
    assert labels.counts(labelled("no")) == "+1: yes (0); -1: no (1)"


@pytest.mark.parametrize("text", ["", "nan", "N.A.", "NaT", ".", "#N/A N/A", "NULL"])
@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_a_missing_label_of_text_is_said(tmp_path: Path, kind: str, text: str) -> None:
    labels = ["yes", "no", text]
    if kind == "csv":
        content: str | bytes = "a,y\n" + "".join(f"{k}.5,{v}\n" for k, v in enumerate(labels))
    else:
        content = npz(X=np.ones((3, 1)), y=np.array(labels))
    with pytest.raises(io.BadFileError, match=r"the label \(.*y.*\) is missing: row 3 has"):
        io.read(write(tmp_path / f"a.{kind}", content))


def test_plus_and_minus_are_classes(tmp_path: Path) -> None:
    table = io.read(write(tmp_path / "a.csv", "a,y\n0.5,+\n1.5,-\n")).train
    assert io.BinaryLabels.fit(table, "+").apply(table).tolist() == [1, -1]


def test_parts_beside_a_matrix_of_scipy_are_read(tmp_path: Path) -> None:
    """They were dropped, and half of the training rows held out in their place."""
    X = sparse.csr_matrix(np.eye(4))
    arrays = {"data": X.data, "indices": X.indices, "indptr": X.indptr, "shape": X.shape}
    parts = {"X_val": np.eye(4)[:2], "y_val": [0, 1], "X_test": np.eye(4)[:3], "y_test": [0, 1, 1]}
    content = npz(**arrays, format=np.array("csr"), y=[0, 1, 0, 1], **parts)
    found = io.read(write(tmp_path / "a.npz", content))
    assert (found.train.shape, found.val.shape, found.test.shape) == ((4, 4), (2, 4), (3, 4))
    with pytest.raises(io.BadFileError, match="it has Xtest and ytest, a part that is not known"):
        io.read(
            write(tmp_path / "a.npz", npz(X=np.eye(2), y=[0, 1], Xtest=np.eye(2), ytest=[0, 1]))
        )


MODEL = {
    "coef": np.array([1.0, 2.0, 3.0]),
    "intercept": np.array(0.5),
    "lam": np.zeros(1),
    "classes": np.array(["a", "b"]),
    "features": np.array(["u", "v", "w"]),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coef", np.array([np.nan, 1, 2])),
        ("coef", np.ones((3, 1))),
        ("coef", np.ones(3) + 1j),
        ("coef", np.array(["1", "2", "3"])),
        ("intercept", np.array(np.inf)),
        ("lam", np.array(["x"])),
        ("lam", np.array([np.nan])),
        ("classes", np.array(["a", "b", "c"])),
        ("classes", np.array(["a", "a"])),
        ("classes", np.array([0, 1])),
        ("features", np.array(["u"])),
        ("features", np.array(["u", "u", "w"])),
    ],
)
def test_a_saved_model_is_checked(tmp_path: Path, name: str, value: np.ndarray) -> None:
    path = write(tmp_path / "m.npz", npz(**{**MODEL, name: value}))
    with pytest.raises(io.BadFileError, match=rf"no model that bilevel saved \({name} must hold"):
        load_model(path)


def test_margins_match_the_columns_of_a_frame_by_name(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "m.npz", npz(**MODEL)))
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 1.0]])
    right = [1.5, 4.5]
    frame = pandas.DataFrame(rows, columns=list("uvw"))
    for X in (rows, sparse.csr_matrix(rows), frame, frame[["w", "u", "v"]], pandas.DataFrame(rows)):
        assert model.margins(X).tolist() == right
    for wrong, error in (
        (frame.rename(columns={"w": "x"}), ValueError),
        (frame.assign(x=0), ValueError),
        (rows[:, :2], ValueError),
        (np.ma.array(rows, mask=rows == 1), TypeError),
    ):
        with pytest.raises(error, match="X"):
            model.margins(wrong)


@pytest.mark.parametrize(("padding", "good"), [(4, True), (8, True), (3, False)])
def test_zero_bytes_between_and_after_streams_of_xz(
    tmp_path: Path, padding: int, good: bool
) -> None:
    head, tail = (lzma.compress(part) for part in (b"a,y\n1.5,0\n", b"2.5,1\n"))
    path = write(tmp_path / "a.csv.xz", head + bytes(padding) + tail + bytes(padding))
    if good:
        assert io.read(path).train.X.tolist() == [[1.5], [2.5]]
    else:
        with pytest.raises(io.BadFileError, match="compressed, and damaged"):
            io.read(path)


@pytest.mark.parametrize("fraction", ["0.5", None, True, np.nan, 1])
def test_a_fraction_that_is_none(fraction: object) -> None:
    with pytest.raises(ValueError, match="fraction must be a number between 0 and 1"):
        io.split(labelled(0, 1, 0, 1), fraction, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["own", "of another", "dangling", "to a folder"])
def test_a_link_is_written_through_where_its_maker_owns_the_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a link of someone else leads to is not overwritten in our name."""
    file, link = tmp_path / "folder" / "file.npz", tmp_path / "link.npz"
    file.parent.mkdir()
    if kind != "dangling":
        file.write_text("old")
    link.symlink_to(file.parent if kind == "to a folder" else file)
    if kind == "of another":
        own = Path.lstat

        class Foreign:
            st_mode, st_uid = own(link).st_mode, own(link).st_uid + 1

        monkeypatch.setattr(Path, "lstat", lambda path: Foreign if path == link else own(path))
    model = io.LinearClassifier(np.ones(1), 0.0, np.zeros(1), np.array(["a", "b"]))
    if kind == "to a folder":
        with pytest.raises(OSError, match="no regular file"):
            io.save_model(link, model)
        return
    io.save_model(link, model)
    monkeypatch.undo()
    assert load_model(link).coef.tolist() == [1.0]
    assert link.is_symlink() is (kind == "own")
    if kind == "of another":
        assert file.read_text() == "old"


@pytest.mark.parametrize("odd", ["\x1c", "\x1d", "\x1f", "\x85"])
def test_a_control_character_in_place_of_a_digit_is_no_space(tmp_path, odd):
    """Python's strip and float take it for one, so that 195484068 was read as 95484068."""
    path = tmp_path / "a.csv"
    path.write_text(f"v0,v1,y\n0.5,{odd}95484068.2,1\n0.97,17077.7,1\n0.4,1.5,0\n", "utf-8")
    with pytest.raises(io.BadFileError, match="a.csv"):
        io.read(path)
