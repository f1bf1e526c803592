"""Readers: what a good file gives, and what each kind of bad file is told."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from bilevel import datasets, io

LIBSVM = "+1 1:0.5 3:2\n# a comment\n-1 2:1e-3  # another\n\n+1 1:-1\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_libsvm_gives_rows_labels_and_lines(tmp_path: Path) -> None:
    table = io.read(write(tmp_path / "a.svm", LIBSVM)).train
    np.testing.assert_array_equal(table.X.toarray(), [[0.5, 0, 2], [0, 1e-3, 0], [-1, 0, 0]])
    np.testing.assert_array_equal(table.y, [1, -1, 1])
    np.testing.assert_array_equal(table.lines, [1, 3, 5])


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_libsvm_is_read_compressed(tmp_path: Path, suffix: str, compress) -> None:
    path = tmp_path / f"a.svm{suffix}"
    path.write_bytes(compress(LIBSVM.encode()))
    table = io.read(path).train
    assert table.shape == (3, 3)
    np.testing.assert_array_equal(table.lines, [1, 3, 5])


def test_libsvm_features_and_numbering_are_as_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", "1 0:1 2:3\n-1 1:2\n")
    table = io.read(path, io.ReadOptions(features=5, zero_based=True)).train
    np.testing.assert_array_equal(table.X.toarray(), [[1, 0, 3, 0, 0], [0, 2, 0, 0, 0]])


@pytest.mark.parametrize(
    ("text", "line", "problem", "cure"),
    [
        ("1 1:1\n-1 1:nan\n", 2, "feature 1 has the value 'nan'", "leave the pair out"),
        ("1 1:1\n-1 1:inf\n", 2, "feature 1 has the value 'inf'", "leave the pair out"),
        ("1 1:1\n\n# note\n-1 1:x\n", 4, "feature 1 has the value 'x'", "finite number"),
        ("1 1:1\n-1 1 2:1\n", 2, "'1' is no index:value pair", "index:value"),
        ("1 1:1\n-1 3:1 2:1\n", 2, "feature 2 comes after feature 3", "increasing order"),
        ("1 1:1\n-1 2:1 2:1\n", 2, "feature 2 comes after feature 2", "once"),
        ("1 0:1\n-1 1:1\n", 1, "feature number 0 is below 1", "--zero-based"),
        ("1 1:1\nyes 1:1\n", 2, "the label is 'yes'", "finite number"),
        ("1 1:1\nnan 1:1\n", 2, "the label is 'nan'", "finite number"),
    ],
)
def test_libsvm_errors_name_line_and_cure(
    tmp_path: Path, text: str, line: int, problem: str, cure: str
) -> None:
    path = write(tmp_path / "bad.svm", text)
    with pytest.raises(io.BadFileError) as caught:
        io.read(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)
    assert problem in caught.value.problem
    assert cure in caught.value.cure
    assert str(caught.value).startswith(f"{path}, line {line}: ")


def test_libsvm_feature_beyond_the_declared_number(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.svm", "1 1:1\n-1 7:1\n")
    with pytest.raises(io.BadFileError, match=r"line 2: feature 7 .* Give --features 7"):
        io.read(path, io.ReadOptions(features=3))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_csv_with_any_separator(tmp_path: Path, separator: str, header: bool) -> None:
    rows = [["a", "label", "b"]] if header else []
    rows += [["1", "0", "2.5"], ["-3", "1", "4e1"]]
    path = write(tmp_path / "a.csv", "\n".join(separator.join(row) for row in rows) + "\n")
    table = io.read(path, io.ReadOptions(label=None if header else "1")).train
    np.testing.assert_array_equal(table.X, [[1, 2.5], [-3, 40]])
    np.testing.assert_array_equal(table.y, [0, 1])
    np.testing.assert_array_equal(table.lines, [2, 3] if header else [1, 2])


def test_csv_takes_the_last_column_for_the_label(tmp_path: Path) -> None:
    table = io.read(write(tmp_path / "a.csv", "a,b\n1,M\n2,B\n")).train
    assert table.y.tolist() == ["M", "B"]
    assert table.label == "column 'b'"


@pytest.mark.parametrize(
    ("text", "line", "problem", "cure"),
    [
        ("a,y\n1,0\n2\n", 3, "it has 1 columns where 2 were expected", "same columns"),
        ("a,y\n1,0\n2,1,5\n", 3, "it has 3 columns where 2 were expected", "same columns"),
        ("a,y\n1,0\n,1\n", 3, "column 'a' has no value", "impute"),
        ("a,y\n1,0\nred,1\n", 3, "column 'a' has 'red', no number", "Encode"),
        ("a,y\n1,0\nnan,1\n", 3, "row 2 has nan in column 'a'", "Replace it"),
        ("a,y\n1,0\ninf,1\n", 3, "row 2 has inf in column 'a'", "beyond 1.8e308"),
        ("a,y\n1,0\n1e400,1\n", 3, "row 2 has inf in column 'a'", "beyond 1.8e308"),
        ("a,y\n1,0\n2,\n", 3, "the label (column 'y') is missing", "Give the row a label"),
        ("a,y\n1,0\n2,nan\n", 3, "the label (column 'y') is missing", "Give the row a label"),
        ("a,y\n", None, "there is a header but no rows", "Add rows"),
        ("\n\n", None, "the file holds no rows", "with data"),
        ("1\n2\n", 1, "there is one column only", "separated by"),
    ],
)
def test_csv_errors_name_line_and_cure(
    tmp_path: Path, text: str, line: int | None, problem: str, cure: str
) -> None:
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(io.BadFileError) as caught:
        io.read(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)
    assert problem in caught.value.problem
    assert cure in caught.value.cure


def test_csv_without_the_named_column_lists_those_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\n1,0\n")
    with pytest.raises(io.BadFileError, match=r"no column 'z'\. Give --label one of: a, b"):
        io.read(path, io.ReadOptions(label="z"))


X_DENSE = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], dtype=np.float32)
Y = np.array([0, 1, 1])


def test_npz_dense_keeps_float32_and_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X_train=X_DENSE, y_train=Y, X_test=X_DENSE[:1], y_test=Y[:1])
    found = io.read(path)
    assert found.train.X.dtype == np.float32
    assert found.val is None
    assert found.test is not None
    assert found.test.shape == (1, 2)


def test_npz_csr_by_four_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    X = sparse.csr_matrix(X_DENSE)
    np.savez(path, X_data=X.data, X_indices=X.indices, X_indptr=X.indptr, X_shape=X.shape, y=Y)
    np.testing.assert_array_equal(io.read(path).train.X.toarray(), X_DENSE)


def test_npz_as_scipy_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    sparse.save_npz(path, sparse.csr_matrix(X_DENSE))
    with pytest.raises(io.BadFileError, match=r"without labels. Save them beside it.*a\.y\.npy"):
        io.read(path)
    np.save(tmp_path / "a.y.npy", Y)
    table = io.read(path).train
    np.testing.assert_array_equal(table.X.toarray(), X_DENSE)
    np.testing.assert_array_equal(table.y, Y)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"A": X_DENSE}, "no X and y, but A"),
        ({"X": X_DENSE}, "it has X but no y"),
        ({"X": X_DENSE, "y": Y[:2]}, "3 rows of features but labels of shape"),
        ({"X": X_DENSE[0], "y": Y}, "X has the shape"),
        ({"X": X_DENSE[:0], "y": Y[:0]}, "holds no rows"),
        ({"X": X_DENSE[:, :0], "y": Y}, "hold no features"),
        ({"X": np.array([["a"], ["b"], ["c"]]), "y": Y}, "X has the dtype <U1"),
        ({"X": np.where(X_DENSE == 3, np.nan, X_DENSE), "y": Y}, "row 3 has nan in feature 1"),
        ({"X": X_DENSE, "y": np.array([0, 1, np.nan])}, "is missing: row 3 has nan"),
        ({"X_data": np.ones(1), "y": Y}, "lacks X_indices, X_indptr, X_shape"),
        (
            {
                "X_data": np.ones(1),
                "X_indices": [9],
                "X_indptr": [0, 1],
                "X_shape": [1, 2],
                "y": [1],
            },
            "do not fit each other",
        ),
        (
            {
                "X_data": [np.inf],
                "X_indices": [1],
                "X_indptr": [0, 0, 1],
                "X_shape": [2, 2],
                "y": [0, 1],
            },
            "row 2 has inf in feature 2",
        ),
    ],
)
def test_npz_errors_name_the_array(tmp_path: Path, arrays: dict, message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(io.BadFileError) as caught:
        io.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there_empty_or_foreign(tmp_path: Path) -> None:
    with pytest.raises(io.BadFileError, match="there is no such file"):
        io.read(tmp_path / "none.csv")
    with pytest.raises(io.BadFileError, match="this is a folder"):
        io.read(tmp_path)
    with pytest.raises(io.BadFileError, match="the file is empty"):
        io.read(write(tmp_path / "empty.svm", ""))
    with pytest.raises(io.BadFileError, match=r"no \.npz archive"):
        io.read(write(tmp_path / "text.npz", "this is text"))


def table(y: list, **more) -> io.Table:
    return io.Table(np.ones((len(y), 1)), np.asarray(y), "t.csv", **more)


@pytest.mark.parametrize("pair", [(-1, 1), (0, 1), (1, 2)])
def test_two_plain_labels_become_minus_and_plus_one(pair: tuple[int, int]) -> None:
    low, high = pair
    rows = table([high, low, high])
    labels = io.BinaryLabels.fit(rows)
    assert labels.apply(rows).tolist() == [1, -1, 1]
    assert bool(labels.note) is (pair != (-1, 1))


def test_labels_without_plain_order_need_a_positive_one() -> None:
    rows = table(["M", "B"])
    with pytest.raises(io.BadFileError, match="--positive M"):
        io.BinaryLabels.fit(rows)
    assert io.BinaryLabels.fit(rows, "M").apply(rows).tolist() == [1, -1]


def test_labels_not_binary_name_the_line_of_the_third() -> None:
    rows = table([0, 1, 2], lines=np.array([2, 3, 5]))
    with pytest.raises(io.BadFileError, match=r"t\.csv, line 5: .* not binary: 3 .*--positive 2"):
        io.BinaryLabels.fit(rows)
    assert io.BinaryLabels.fit(rows, "2").apply(rows).tolist() == [-1, -1, 1]
    with pytest.raises(io.BadFileError, match="no row has the label '7'"):
        io.BinaryLabels.fit(rows, "7")


def test_one_label_alone_is_refused() -> None:
    with pytest.raises(io.BadFileError, match="every label is 1"):
        io.BinaryLabels.fit(table([1, 1]))


def test_a_label_unknown_to_the_training_rows_is_refused_with_its_line() -> None:
    labels = io.BinaryLabels.fit(table([0, 1]))
    with pytest.raises(io.BadFileError, match="line 9: the label -1 is none of .*\\(0, 1\\)"):
        labels.apply(table([0, -1], lines=np.array([8, 9])))
    # One class alone keeps its meaning.
    assert labels.apply(table([1, 1])).tolist() == [1, 1]


def test_feature_counts_that_differ() -> None:
    wide, narrow = (io.Table(np.ones((1, p)), np.ones(1), f"{p}.csv") for p in (3, 2))
    with pytest.raises(io.BadFileError, match=r"2\.csv: it has 2 features but 3\.csv has 3"):
        io.same_features(narrow, wide)
    sparse_wide, sparse_narrow = (
        io.Table(sparse.csr_matrix(np.ones((1, p))), np.ones(1), f"{p}.svm") for p in (3, 2)
    )
    assert io.same_features(sparse_narrow, sparse_wide).shape == (1, 3)
    with pytest.raises(io.BadFileError, match=r"3\.svm: it has 3 .* Read both with --features 3"):
        io.same_features(sparse_wide, sparse_narrow)


@given(n=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_split_is_a_partition_that_the_seed_alone_decides(
    n: int, fraction: float, seed: int
) -> None:
    rows = io.Table(np.arange(n, dtype=float)[:, None], np.arange(n) % 2, "t", np.arange(n))
    if not 0 < round(fraction * n) < n:
        with pytest.raises(io.BadFileError, match="cannot be split"):
            io.split(rows, fraction, seed)
        return
    kept, taken = io.split(rows, fraction, seed)
    assert taken.shape[0] == round(fraction * n)
    assert sorted([*kept.X[:, 0], *taken.X[:, 0]]) == list(range(n))
    np.testing.assert_array_equal(kept.lines, kept.X[:, 0])
    again, _ = io.split(rows, fraction, seed)
    np.testing.assert_array_equal(kept.X, again.X)


def test_half_split_trains_on_the_first_half_of_the_permutation() -> None:
    rows = io.Table(np.arange(10.0)[:, None], np.arange(10) % 2, "t")
    kept, taken = io.split(rows, 0.5, seed=3)
    order = np.random.default_rng(3).permutation(10)
    np.testing.assert_array_equal(kept.X[:, 0], order[:5])
    np.testing.assert_array_equal(taken.X[:, 0], order[5:])


def test_model_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    model = io.LinearClassifier(
        np.array([0.1, -2.0]), 0.3, np.array([1.0]), np.array(["benign", "malignant"])
    )
    io.save_model(path, model)
    found = io.load_model(path)
    np.testing.assert_array_equal(found.coef, model.coef)
    assert found.intercept == model.intercept
    assert found.classes.tolist() == ["benign", "malignant"]
    X = sparse.csr_matrix([[1.0, 1.0]])
    np.testing.assert_allclose(found.margins(X), [0.1 - 2.0 + 0.3])


def test_a_model_of_several_classes_is_read_back_and_predicts_its_labels(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    coef = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], dtype=np.float32)
    model = io.LinearClassifier(coef, np.array([0.0, 0.0, 0.5]), np.zeros(1), np.array([-3, 2, 9]))
    io.save_model(path, model)
    found = io.load_model(path)
    assert found.coef.tobytes() == coef.tobytes()
    X = np.array([[2.0, 1.0], [1.0, 2.0], [0.0, 0.0]])
    for rows in (X, sparse.csr_matrix(X)):
        np.testing.assert_array_equal(found.margins(rows), X @ coef.T + model.intercept)
        assert found.predict(rows).tolist() == [-3, 2, 9]


@pytest.mark.parametrize(
    ("intercept", "classes", "message"),
    [
        (0.0, np.arange(3), "coef must hold finite real numbers along 1 axes"),
        (np.zeros(2), np.arange(3), "intercept must hold a number for each of 3 classes"),
        (np.zeros(3), np.array([1, 1, 2]), "classes must hold 3 different integers"),
        (np.zeros(3), np.array(["a", "b", "c"]), "classes must hold 3 different integers"),
    ],
)
def test_a_model_of_several_classes_is_checked(intercept, classes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.LinearClassifier(np.ones((3, 2)), intercept, np.zeros(1), classes)


def test_labels_beyond_the_integers_of_a_float_stay_apart() -> None:
    big = 2**53
    table = io.Table(np.ones((3, 1)), np.array([big + 1, big, 7]), "a.csv")
    labels = io.ClassLabels.fit(table)
    assert labels.classes.tolist() == [7, big, big + 1]
    assert labels.apply(table).tolist() == [2, 1, 0]


def test_json_writes_what_json_lacks_as_null() -> None:
    from bilevel.io.log import plain

    assert (
        json.dumps(plain([np.array([1.0, np.nan]), float("inf"), None]))
        == "[[1.0, null], null, null]"
    )


@pytest.mark.parametrize("name", ["breast_cancer", "digits"])
def test_bundled_sets_are_binary_finite_and_split(name: str) -> None:
    found = datasets.load(name)
    assert found.test is not None
    assert set(io.BinaryLabels.fit(found.train).apply(found.train)) == {-1.0, 1.0}
    assert np.isfinite(found.train.X).all()
    assert found.train.shape[1] == found.test.shape[1]


def test_registered_sets_are_read_from_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "real-sim", LIBSVM)
    assert datasets.load("real-sim", tmp_path).train.shape == (3, 20_958)
    np.savez(
        tmp_path / "mnist.npz",
        X_train=np.array([[0, 255]], dtype=np.uint8),
        y_train=np.array([7]),
        X_test=np.array([[51, 0]], dtype=np.uint8),
        y_test=np.array([4]),
    )
    mnist = datasets.load("mnist", tmp_path)
    assert mnist.test is not None
    np.testing.assert_array_equal(mnist.train.X, [[0, 1]])
    np.testing.assert_array_equal(mnist.test.X, [[0.2, 0]])
    assert (mnist.train.y.tolist(), mnist.test.y.tolist()) == ([1], [0])


@pytest.mark.parametrize("name", ["reuters", "real-sim"])
def test_a_set_that_cannot_be_fetched_says_where_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(io.BadFileError, match="https://"):
        datasets.load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "fetcher"), [("20news", "fetch_20newsgroups_vectorized"), ("mnist", "fetch_openml")]
)
def test_a_failed_fetch_says_what_to_do(
    name: str, fetcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sklearn.datasets

    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(sklearn.datasets, fetcher, fail)
    with pytest.raises(io.BadFileError, match=rf"OSError: no network\). Put .*{fetcher}"):
        datasets.load(name, tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_a_model_gives_no_margin_to_what_is_no_number(bad: float, kind) -> None:
    model = io.LinearClassifier(np.ones(2), 0.0, np.zeros(1), np.array(["a", "b"]))
    assert model.margins(kind(np.array([[1, 2]]))).tolist() == [3]
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.margins(kind(np.array([[1.0, bad]])))
