"""The experiments keep their contract; whether a claim holds is for the real runs to say."""

from __future__ import annotations

import html
import json
import math

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

import bilevel
from bilevel.io import BadFileError
from paper_repro import __main__ as program
from paper_repro import datasets, storage
from paper_repro.contract import Check, Results, Settings, Verdict
from paper_repro.experiments import EXPERIMENTS
from paper_repro.measure import Budget, Truth, cost_to_reach, search, subtract_optimum, trace


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """Small sets in the formats of the real ones."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("20news_vectorized", "reuters21578_earn_counts"):
        arrays = {}
        for part, n in (("train", 90), ("test", 60)):
            X = sparse.random_array((n, 40), density=0.2, rng=rng, format="csr")
            arrays |= {
                f"X_{part}_data": X.data,
                f"X_{part}_indices": X.indices,
                f"X_{part}_indptr": X.indptr,
                f"X_{part}_shape": np.array(X.shape),
                f"y_{part}": np.where(X.sum(axis=1) + rng.normal(0, 1, n) > 4, 1, -1),
            }
        np.savez(folder / f"{name}.npz", **arrays)
    subject = np.repeat(np.arange(1, 31), 6)
    X = np.column_stack([subject, rng.normal(size=(180, 19))])
    np.savez(folder / "parkinsons_updrs.npz", X=X, y=X[:, 1] + subject / 10, subject=subject)
    pixels = {}
    for part, n in (("train", 300), ("test", 150)):
        pixels[f"X_{part}"] = rng.integers(0, 256, (n, 784)).astype(np.uint8)
        pixels[f"y_{part}"] = (np.arange(n) % 10).astype(np.uint8)
    np.savez(folder / "mnist.npz", **pixels)
    return folder


@pytest.fixture
def with_data(data_folder, monkeypatch):
    monkeypatch.setenv("BILEVEL_DATA", str(data_folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_an_experiment_runs_draws_judges_and_redraws(name, with_data, tmp_path):
    assert program.main([name, "--tiny", "--out", str(tmp_path)]) == 0
    folder = tmp_path / name
    content = json.loads((folder / "results.json").read_text())
    record = content["provenance"]
    assert record["seed"] == 0
    assert record["versions"]["numpy"]
    assert {"commit", "machine", "seconds", "date"} <= set(record)
    for table, rows in content["tables"].items():
        lines = (folder / f"{table}.csv").read_text().splitlines()
        assert len(lines) == len(rows) + 1
        assert rows
    pictures = sorted(path.name for path in folder.glob("*.svg"))
    assert pictures
    assert sorted(path.with_suffix(".svg").name for path in folder.glob("*.png")) == pictures
    before = {picture: (folder / picture).read_bytes() for picture in pictures}
    page = (tmp_path / "index.html").read_text()
    assert html.escape(EXPERIMENTS[name].title) in page
    for picture in pictures:
        (folder / picture).unlink()
    assert program.main([name, "--redraw", "--out", str(tmp_path)]) == 0
    assert {picture: (folder / picture).read_bytes() for picture in pictures} == before


def test_the_stand_in_is_on_the_first_line_of_the_page(with_data, tmp_path):
    note = datasets.real_sim().note
    assert note.startswith("Stand-in: Reuters-21578")
    settings = Settings(tiny=True)
    record = {**storage.provenance(settings), "seconds": 1.0}
    row = {
        "data": "a", "seed": 0, "method": "exact", "k": 1, "lam": [0.0], "seconds": 1.0,
        "passes": 10, "relative": 0.5, "f": 1.0, "test_loss": 1.0,
    }  # fmt: skip
    rows = [{**row, "method": m} for m in ("exact", "quadratic", "cubic", "exponential")]
    storage.write(tmp_path / "tolerance", Results({"trace": rows}, {}, (note,)), record)
    assert program.main(["tolerance", "--redraw", "--out", str(tmp_path)]) == 0
    body = (tmp_path / "index.html").read_text().partition("<main>")[2].strip()
    assert body.splitlines()[0] == f'<p class="stand-in">{note}</p>'


@pytest.mark.parametrize(
    ("held", "outcome"),
    [((True, True), "reproduced"), ((True, False), "partly"), ((False,), "not")],
)
def test_a_verdict_counts_its_claims_alone(held, outcome):
    ours = (Check("a", "b", holds=h, claimed=False) for h in (True, False))
    assert Verdict((*ours, *(Check("a", "b", h) for h in held))).outcome == outcome


def test_what_is_stored_is_read_back_and_nan_is_null(tmp_path):
    results = Results({"t": [{"a": 1.5, "lam": [0.0, 1.0]}, {"a": math.nan}]}, {"n": 3}, ("note",))
    storage.write(tmp_path, results, {"seconds": 1.0})
    found, record = storage.read(tmp_path)
    assert found.tables == {"t": [{"a": 1.5, "lam": [0.0, 1.0]}, {"a": None}]}
    assert (found.facts, found.notes, record) == ({"n": 3}, ("note",), {"seconds": 1.0})
    assert (tmp_path / "t.csv").read_text().splitlines() == ["a,lam", "1.5,0.0 1.0", "nan,"]


def test_no_patient_is_in_two_parts(with_data):
    data = datasets.parkinsons()
    marked = datasets.Data(data.name, data.X, data.group.astype(float), data.group)
    parts = [set(labels) for _, labels in marked.thirds(0)]
    assert all(parts)
    assert len(set.union(*parts)) == sum(len(part) for part in parts)


def test_thirds_use_each_row_once(with_data):
    data = datasets.news()
    numbered = datasets.Data("n", data.X, np.arange(len(data.y)))
    rows = np.concatenate([labels for _, labels in numbered.thirds(3)])
    assert sorted(rows) == list(range(150))


def test_missing_data_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("BILEVEL_DATA", raising=False)
    monkeypatch.setenv("BILEVEL_CACHE", str(tmp_path))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(BadFileError, match="BILEVEL_DATA"):
        datasets.parkinsons()


def test_a_cached_file_that_changed_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("BILEVEL_CACHE", str(tmp_path))
    (tmp_path / "a.zip").write_bytes(b"other")
    (tmp_path / "a.zip.sha256").write_text("0" * 64)
    with pytest.raises(BadFileError, match="SHA-256"):
        datasets.fetch("https://example.org/a.zip", "a.zip")


def _problem():
    rng = np.random.default_rng(1)
    X, noise = rng.normal(size=(80, 6)), rng.normal(size=80)
    y = np.where(X[:, 0] + noise > 0, 1.0, -1.0)
    return bilevel.logistic_regression(X[:40], y[:40], X[40:], y[40:])


def test_f_star_is_below_f_everywhere():
    truth = Truth(_problem())
    values = [truth([t])[0] for t in np.linspace(-6, 6, 13)]
    best = truth.refine()
    assert best <= min(values)
    low, high = (truth([truth.best[0][0] + d])[0] for d in (-1e-2, 1e-2))
    assert best <= min(low, high)


def test_measuring_f_does_not_count_as_the_methods_work():
    problem = _problem()
    alone = trace(problem, "hoag", Budget(10_000, 60.0, 5))
    truth = Truth(problem)
    for row in alone:
        truth(row["lam"])
    again = trace(problem, "hoag", Budget(10_000, 60.0, 5))
    assert [row["passes"] for row in again] == [row["passes"] for row in alone]


def test_a_search_keeps_its_best_and_costs_add_up():
    def proposals():
        for lam in (4.0, 0.0, 8.0):
            yield [lam]

    problem = _problem()
    rows = search(problem, proposals(), Budget(10_000, 60.0))
    losses = {lam: Truth(problem)([lam])[0] for lam in (4.0, 0.0, 8.0)}
    assert rows[-1]["lam"] == [min(losses, key=losses.get)]
    assert rows[-1]["measured"] == pytest.approx(min(losses.values()), rel=1e-6)
    passes = [row["passes"] for row in rows]
    assert passes == sorted(passes)
    for row in rows:
        row["f"] = row["measured"]
    subtract_optimum(rows, min(losses.values()))
    assert cost_to_reach(rows, 1e-5, "passes") in passes
    assert cost_to_reach(rows, -1.0, "passes") is None


def test_an_unknown_experiment_is_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["tolerence"])
    assert "choose from tolerance" in capsys.readouterr().err
