"""The report is one whole, self-contained, well-formed page, and shows the run's own numbers."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import bilevel
from bilevel import Result
from bilevel.plotting import PANELS, plot, save_plot, trace
from bilevel.report import render_report

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Collects ids, references and text, and refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src", "action", "data", "srcset"):
                self.sources.append(value)
            if name.startswith("aria-labelledby"):
                self.references.append(value)
            self.references += re.findall(r"url\(#([^)]+)\)", value)


@pytest.fixture(scope="module")
def result() -> bilevel.Result:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((80, 3))
    y = np.where(X[:, 0] + rng.standard_normal(80) > 0, 1.0, -1.0)
    problem = bilevel.logistic_regression(X[::2], y[::2], X[1::2], y[1::2])
    return bilevel.minimize(problem, max_iter=6)


@pytest.fixture(scope="module")
def html(result: bilevel.Result) -> str:
    return render_report(
        result,
        title="A <b>run</b>",
        outcome={"λ": "1"},
        settings={"seed": "0"},
        versions={"v": "2"},
    )


def test_report_needs_nothing_from_outside(html: str) -> None:
    page = Page(html)
    assert all(source.startswith("#") for source in page.sources)
    assert not re.search(r"@import|<script|<link|<img|<iframe", html)
    outside = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", html)
    assert set(outside) <= {"http://www.w3.org"}  # names of XML namespaces


def test_report_ids_are_unique_and_references_lead_somewhere(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    wanted = set(page.references) | {s[1:] for s in page.sources}
    assert wanted <= set(page.ids)


def test_report_follows_light_and_dark(html: str) -> None:
    assert "prefers-color-scheme: dark" in html
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in svg
    assert not re.search(r"(?:fill|stroke): #", svg)


def test_report_shows_the_numbers_of_the_run(html: str, result: bilevel.Result) -> None:
    text = "".join(Page(html).text)
    for record in result.history:
        assert f"{record.value:.6f}" in text
        assert f"{record.lam[0]:.4f}" in text
    for panel in PANELS:
        assert panel.title in text


def test_report_escapes_what_it_is_given(html: str) -> None:
    assert "<b>run</b>" not in html
    assert "A &lt;b&gt;run&lt;/b&gt;" in html


def test_report_of_a_run_that_ended_before_its_first_iteration(result: bilevel.Result) -> None:
    empty = replace(result, history=(), nit=0, status=bilevel.Status.INTERRUPTED)
    assert "Not converged" in render_report(empty)
    assert len(plot(empty).axes) == 3


@pytest.mark.parametrize("m", [1, 3, 40])
def test_every_panel_draws_one_and_many_hyperparameters(result: bilevel.Result, m: int) -> None:
    history = tuple(replace(r, lam=np.linspace(r.k, r.k + 1, m)) for r in result.history)
    many = replace(result, history=history)
    assert trace(history).lam.shape == (result.nit, m)
    assert "Path of λ" in render_report(many)


def test_records_without_bounds_or_progress_are_drawn(result: bilevel.Result) -> None:
    zero = np.zeros(1)
    history = tuple(
        replace(r, inner_error=None, hypergrad_error=None, hypergrad=zero) for r in result.history
    )
    assert "Hypergradient" in render_report(replace(result, history=history))


def test_picture_is_the_same_each_time(result: bilevel.Result, tmp_path) -> None:
    for name in ("a.svg", "b.svg"):
        save_plot(result, tmp_path / name)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()


@pytest.mark.slow_on("jax")
def test_report_reads_records_of_any_library(backend, html: str) -> None:
    X = backend.asarray([[1.0], [2.0], [-1.0], [0.5]], dtype=backend.xp.float32)
    y = backend.asarray([1.0, -1.0, -1.0, 1.0], dtype=backend.xp.float32)
    found = bilevel.minimize(bilevel.logistic_regression(X, y, X, y), max_iter=2)
    assert "Path of λ" in render_report(found)


@pytest.mark.parametrize("draw", [plot, render_report, lambda found: save_plot(found, "x.png")])
@pytest.mark.parametrize("found", ["x", None, [], Result], ids=repr)
def test_what_is_no_result_is_refused(draw, found):
    with pytest.raises(TypeError, match="result must be a Result, got"):
        draw(found)


def test_modules_are_loaded_when_they_are_named():
    """``import bilevel`` alone gives what the reference names, and loads nothing heavy."""
    lines = (
        "import bilevel, sys",
        "heavy = {'matplotlib', 'sklearn', 'jinja2'} & set(sys.modules)",
        "names = ('cross_validation', 'datasets', 'io', 'plotting', 'report')",
        "print(heavy, [getattr(bilevel, n).__name__ for n in names], hasattr(bilevel, 'magic'))",
        "print('plotting' in dir(bilevel))",
    )
    run = subprocess.run(
        [sys.executable, "-c", ";".join(lines)], capture_output=True, text=True, check=False
    )
    names = [f"bilevel.{n}" for n in ("cross_validation", "datasets", "io", "plotting", "report")]
    assert run.stdout == f"set() {names} False\nTrue\n", run.stderr
