"""The command line from end to end: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy import sparse

import bilevel
from bilevel import datasets, io
from bilevel.cli._app import app
from bilevel.io import load_model

TUNE = ["tune", "breast_cancer", "--standardize", "--intercept"]


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Eighty noisy rows, for which a strong penalty is best."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 6))
    y = (X[:, 0] + 2 * rng.standard_normal(80) > 0).astype(int)
    path = tmp_path / "train.csv"
    rows = [
        ",".join(f"{v:.17g}" for v in row) + f",{label}" for row, label in zip(X, y, strict=True)
    ]
    path.write_text("a,b,c,d,e,f,y\n" + "\n".join(rows) + "\n")
    return path


def test_tune_prints_iterations_and_summary_and_writes_all_files(tmp_path: Path) -> None:
    names = {"report": "r.html", "plot": "p.svg", "save": "m.npz", "log": "l.jsonl"}
    options = [word for name, file in names.items() for word in (f"--{name}", tmp_path / file)]
    result = run(*TUNE, *options)
    assert result.exit_code == 0, result.output
    for expected in ("λ", "validation loss", "test accuracy", "passes over the data", "seconds"):
        assert expected in result.output
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert [line["k"] for line in lines] == list(range(1, len(lines) + 1))
    assert f"{lines[-1]['value']:.6f}" in result.output
    model = load_model(tmp_path / "m.npz")
    assert model.lam.tolist() == lines[-1]["lam"]
    assert model.coef.shape == (30,)
    assert "<html" in (tmp_path / "r.html").read_text()
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_certify_prints_the_certificate() -> None:
    result = run(*TUNE, "--certify")
    assert result.exit_code == 0, result.output
    assert "Theorem 2" in result.output
    assert "D is convex and bounded" in result.output
    assert "Theorem 2" not in run(*TUNE).output


def test_saved_model_is_in_the_units_of_the_file(tmp_path: Path) -> None:
    """Its accuracy on raw rows is the accuracy that the summary prints."""
    result = run(*TUNE, "--save", tmp_path / "m.npz")
    test = datasets.load("breast_cancer").test
    margins = load_model(tmp_path / "m.npz").margins(test.X)
    accuracy = np.mean((margins > 0) == (test.y == 1))
    assert accuracy > 0.9
    assert f"{accuracy:.2%}" in result.output


def test_tune_agrees_with_the_python_interface(csv: Path, tmp_path: Path) -> None:
    assert run("tune", csv, "--val", "0.5", "--save", tmp_path / "m.npz", "-q").exit_code == 0
    kept, taken = io.split(io.read(csv).train, 0.5, seed=0)
    problem = bilevel.logistic_regression(kept.X, 2 * kept.y - 1, taken.X, 2 * taken.y - 1)
    expected = bilevel.minimize(problem)
    model = load_model(tmp_path / "m.npz")
    np.testing.assert_array_equal(model.lam, expected.lam)
    np.testing.assert_array_equal(model.coef, expected.x)


def test_quiet_prints_nothing(csv: Path) -> None:
    assert run("tune", csv, "--quiet").output == ""


def test_held_out_and_test_files(csv: Path, tmp_path: Path) -> None:
    result = run("tune", csv, "--val", csv, "--test", csv, "--max-iter", "2")
    assert result.exit_code == 0
    assert "80 × 6 dense" in result.output
    assert "test accuracy" in result.output


def test_sparse_and_dense_files_give_the_same_model(csv: Path, tmp_path: Path) -> None:
    table = io.read(csv).train
    svm = tmp_path / "train.svm"
    svm.write_text(
        "".join(
            f"{label:g} " + " ".join(f"{j}:{v:.17g}" for j, v in enumerate(row, 1)) + "\n"
            for row, label in zip(table.X, table.y, strict=True)
        )
    )
    options = ("--standardize", "--intercept", "--max-iter", "5", "-q", "--save")
    for path in (csv, svm):
        assert run("tune", path, *options, tmp_path / f"{path.suffix[1:]}.npz").exit_code == 0
    dense, compressed = (load_model(tmp_path / f"{name}.npz") for name in ("csv", "svm"))
    np.testing.assert_allclose(compressed.lam, dense.lam, rtol=1e-8)
    np.testing.assert_allclose(compressed.coef, dense.coef, rtol=1e-7)
    assert compressed.intercept == pytest.approx(dense.intercept, rel=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_give_the_same_lambda(csv: Path, tmp_path: Path, dtype: str) -> None:
    lams = {}
    for name in ("numpy", "array_api_strict", "torch"):
        path = tmp_path / f"{name}.npz"
        result = run("tune", csv, "--backend", name, "--dtype", dtype, "-q", "--save", path)
        if result.exit_code == 2 and "not installed" in result.output:
            continue
        assert result.exit_code == 0, result.output
        lams[name] = load_model(path).lam
    for lam in lams.values():
        assert lam.dtype == dtype
        np.testing.assert_allclose(lam, lams["numpy"], rtol=1e-8 if dtype == "float64" else 1e-2)


BAD = {
    "missing": (["tune", "none.csv"], "none.csv: there is no such file"),
    "unknown name": (["tune", "irises"], "Give a path, or one of: breast_cancer"),
    "ragged": (["tune", "ragged.csv"], "ragged.csv, line 3: it has 1 columns"),
    "nan": (["tune", "nan.csv"], "nan.csv, line 2: row 1 has nan"),
    "three classes": (["tune", "three.csv"], "three.csv, line 4: the labels are not binary"),
    "other features": (["tune", "good.csv", "--val", "wide.csv"], "wide.csv: it has 2 features"),
    "other labels": (["tune", "good.csv", "--val", "signs.csv"], "signs.csv, line 3: the label -1"),
    "bounds": (["tune", "good.csv", "--bounds", "1", "-1"], "lower must not exceed upper"),
    "lam0": (["tune", "good.csv", "--lam0", "nan"], "lam0 must be finite"),
    "device": (["tune", "good.csv", "--device", "cuda"], "device 'cpu' alone"),
    "folder": (["tune", "good.csv", "--report", "no/r.html"], "there is no folder no"),
    "starts and checkpoint": (
        ["tune", "good.csv", "--starts", "3", "--checkpoint", "c.npz"],
        "--checkpoint holds one search",
    ),
    "starts and lam0": (["tune", "good.csv", "--starts", "3", "--lam0", "1"], "leave out --lam0"),
    "starts without end": (
        ["tune", "good.csv", "--starts", "3", "--bounds", "0", "inf"],
        "give finite --bounds",
    ),
    "resume": (["tune", "good.csv", "--resume"], "--resume needs --checkpoint"),
    "picture": (["tune", "good.csv", "--plot", "p.xyz"], "--plot p.xyz: it can't be written as"),
    "model": (["tune", "good.csv", "--save", "m.npy"], "end its name in one of .npz"),
    "report": (["tune", "good.csv", "--report", "r.pdf"], "end its name in one of .html, .htm"),
    "other class": (
        ["tune", "good.csv", "--positive", "1", "--test", "signs.csv"],
        "signs.csv, line 3: the label -1 is none of the training rows' (0, 1)",
    ),
    "option": (["tune", "good.csv", "--model", "forest"], "'forest' is not"),
}
FILES = {
    "ragged.csv": "a,y\n1,0\n2\n",
    "nan.csv": "a,y\nnan,0\n2,1\n",
    "three.csv": "a,y\n1,0\n2,1\n3,2\n",
    "good.csv": "a,y\n1,0\n2,1\n3,0\n4,1\n5,0\n6,1\n",
    "wide.csv": "a,b,y\n1,1,0\n2,1,1\n",
    "signs.csv": "a,y\n1,1\n2,-1\n",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    words, message = BAD[case]
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_failed_solve_has_exit_code_1(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    solve = bilevel.minimize
    monkeypatch.setattr(
        bilevel,
        "minimize",
        lambda *args, **kw: replace(solve(*args, **kw), status=bilevel.Status.NON_FINITE),
    )
    result = run("tune", csv, "--max-iter", "1")
    assert result.exit_code == 1
    assert "the solve failed: A value became NaN or infinite." in result.output


def test_budgets_are_kept_and_are_no_failure() -> None:
    result = run(*TUNE, "--max-passes", "150", "--tol", "0")
    assert result.exit_code == 0
    assert bilevel.Status.MAX_PASSES.message in result.output


def test_the_best_of_several_starts_is_saved_and_logged(tmp_path: Path) -> None:
    log, saved = tmp_path / "l.jsonl", tmp_path / "m.npz"
    tune = [*TUNE, "--bounds", "-2", "6", "--seed", "1"]
    result = run(*tune, "--starts", "3", "--log", log, "--save", saved)
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if line.startswith("search ")]
    assert len(lines) == 3
    assert "λ from -0.6667 to" in lines[0]
    losses = [float(re.search(r"val. loss ([\d.]+)", line)[1]) for line in lines]  # type: ignore[index]
    assert f"{min(losses):.6f} (" in result.output  # that of the summary
    assert "together," in result.output
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["lam"] == load_model(saved).lam.tolist()


def test_resume_ends_as_the_unbroken_run(tmp_path: Path) -> None:
    tune = [*TUNE, "--tol", "0", "-q", "--log", tmp_path / "l.jsonl", "--save"]
    assert run(*tune, tmp_path / "whole.npz", "--max-iter", "8").exit_code == 0
    whole = (tmp_path / "l.jsonl").read_text().splitlines()
    checkpoint = ["--checkpoint", tmp_path / "c.npz", "--resume"]
    assert run(*tune, tmp_path / "half.npz", "--max-iter", "3", *checkpoint).exit_code == 0
    assert run(*tune, tmp_path / "both.npz", "--max-iter", "8", *checkpoint).exit_code == 0
    expected, found = (load_model(tmp_path / f"{name}.npz") for name in ("whole", "both"))
    assert expected.lam.tobytes() == found.lam.tobytes()
    assert expected.coef.tobytes() == found.coef.tobytes()
    resumed = (tmp_path / "l.jsonl").read_text().splitlines()
    assert [json.loads(a)["lam"] for a in whole] == [json.loads(b)["lam"] for b in resumed]


def test_resume_from_a_foreign_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "c.npz").write_text("no checkpoint")
    result = run(*TUNE, "--checkpoint", tmp_path / "c.npz", "--resume")
    assert result.exit_code == 2
    assert "no checkpoint" in result.output


def test_a_checkpoint_does_not_take_the_place_of_another_file(tmp_path: Path) -> None:
    path, log = tmp_path / "c.npz", tmp_path / "l.jsonl"
    np.savez(path, X=np.ones(3))
    before = path.read_bytes()
    log.write_text("old")
    result = run(*TUNE, "--checkpoint", path, "--log", log)
    assert result.exit_code == 2
    assert "is no checkpoint of bilevel" in result.output
    assert (path.read_bytes(), log.read_text()) == (before, "old")


#: A test run in the background of a shell ignores SIGINT, and its children inherit that.
LISTENING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("bilevel", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("gap", [None, 0.001, 0.05], ids=str)
def test_ctrl_c_reports_and_saves_the_best_so_far(tmp_path: Path, gap: float | None) -> None:
    """A second one, of who presses twice, cost the model."""
    log = tmp_path / "l.jsonl"
    words = [
        *TUNE,
        "--method",
        "hoag",
        "--tol",
        "0",
        "--max-iter",
        "1000000",
        "--log",
        log,
        "--save",
        "m.npz",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(bilevel.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    if gap is not None:
        time.sleep(gap)
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    # A second one may meet Python as it exits, when all is done.
    assert process.returncode in ((130,) if gap is None else (130, -signal.SIGINT)), output
    assert bilevel.Status.INTERRUPTED.message in output
    assert load_model(tmp_path / "m.npz").coef.shape == (30,)


@pytest.mark.parametrize(("times", "code"), [(1, 0), (2, 130)])
def test_ctrl_c_while_the_model_is_saved_waits_for_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, code: int
) -> None:
    path, save = tmp_path / "m.npz", io.save_model
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*words: object) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        save(*words)

    monkeypatch.setattr(io, "save_model", interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run(*TUNE, "--max-iter", "2", "--save", path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == code
    assert path.exists() == (times == 1)


def test_the_end_of_a_run_without_a_tolerance_is_no_failure(
    csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    solve = bilevel.minimize
    monkeypatch.setattr(
        bilevel,
        "minimize",
        lambda *args, **kw: replace(solve(*args, **kw), status=bilevel.Status.STALLED),
    )
    result = run("tune", csv, "--max-iter", "2", "--tol", "0")
    assert result.exit_code == 0
    assert "Error" not in result.output
    result = run("tune", csv, "--max-iter", "2")
    assert result.exit_code == 1
    assert "Error: the tolerance was not reached: No further progress" in result.output


#: Ctrl-C at the moment at which a module is to be imported.
INTERRUPTS = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


#: Python whose Ctrl-C is what it is by default, whoever started the tests; no fork of this process,
#: which JAX, once used, does not bear.
BY_DEFAULT = (
    *(sys.executable, "-I", "-c"),
    "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
    sys.executable,
)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("module", ["numpy", "click"])
def test_ctrl_c_while_the_command_loads_is_a_line(tmp_path: Path, module: str) -> None:
    """It was a traceback of forty lines: this package comes before any code of the command."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTS)
    paths = [str(tmp_path), str(Path(bilevel.__file__).parents[1])]
    done = subprocess.run(
        [*BY_DEFAULT, "-m", "bilevel", "info"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "INTERRUPT_AT": module},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as on POSIX")
def test_ctrl_c_in_another_program_is_its_own(tmp_path: Path) -> None:
    script = "import signal, bilevel; assert signal.getsignal(2) is signal.default_int_handler"
    (tmp_path / "bilevel").write_text(script)
    subprocess.run(
        [*BY_DEFAULT, tmp_path / "bilevel"],
        env={**os.environ, "PYTHONPATH": str(Path(bilevel.__file__).parents[1])},
        check=True,
    )


def test_an_end_before_the_first_model_writes_none(tmp_path: Path) -> None:
    """Ctrl-C in the first iteration once saved a model of zeros with a loss of nan."""
    model, picture, report = tmp_path / "m.npz", tmp_path / "p.svg", tmp_path / "r.html"
    result = run(
        *["tune", "breast_cancer", "--intercept", "--max-passes", "3"],
        *["--save", model, "--plot", picture, "--report", report],
    )
    assert result.exit_code == 1
    assert "no model has been fitted" in result.output
    assert "not written, for want of a model" in result.output
    assert not any(path.exists() for path in (model, picture, report))


def test_progress_is_shown_inside_the_first_iteration() -> None:
    from io import StringIO

    from rich.console import Console

    from bilevel.cli._live import Live

    text = StringIO()
    with Live(Console(file=text), bilevel.get_backend("numpy")) as live:
        for seconds in (0.5, 1.1, 1.2, 2.5, 3.0):
            live.progress(bilevel.Costs(passes=1234, seconds=seconds))
    lines = [line for line in text.getvalue().splitlines() if line.startswith("...")]
    assert lines == [f"... iteration 1: 1,234 passes, {s} s" for s in (1.1, 2.5)]


def test_a_bound_of_the_domain_is_said_in_summary_and_report(tmp_path: Path) -> None:
    report = tmp_path / "r.html"
    result = run(
        "tune", "breast_cancer", "--standardize", "--bounds", "-12", "-3", "--report", report
    )
    assert "upper bound" in " ".join(result.output.split())
    assert "widen the domain" in report.read_text(encoding="utf-8")


def test_info_lists_every_backend_and_the_versions() -> None:
    result = run("info")
    assert result.exit_code == 0
    for name in bilevel.backend_names():
        assert name in result.output
    assert f"bilevel: {bilevel.__version__}" in result.output


def test_datasets_lists_every_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BILEVEL_DATA", str(tmp_path))
    result = run("datasets")
    assert result.exit_code == 0
    for name in datasets.REGISTRY:
        assert name in result.output


def test_help_names_the_exit_codes() -> None:
    assert "Exit codes: 0 done, 1 the solve failed, 2 bad input" in run("--help").output


def data(path: Path) -> Path:
    """Twelve rows of one feature."""
    path.write_text("a,y\n" + "".join(f"{i / 3:.3f},{i * 5 % 3 % 2}\n" for i in range(12)))
    return path


CLASHES = {
    "training rows": (["t.csv", "--save", "t.csv"], "--save t.csv: the run reads this file"),
    "held-out rows": (["t.csv", "--val", "v.csv", "--log", "./v.csv"], "--log ./v.csv: the run"),
    "test rows": (["t.csv", "--test", "v.csv", "--report", "v.csv"], "--report v.csv: the run"),
    "a link": (["t.csv", "--plot", "link.csv"], "--plot link.csv: the run reads this file"),
    "a hard link": (["t.csv", "--checkpoint", "hard.csv"], "--checkpoint hard.csv: the run"),
    "labels beside": (["s.npz", "--save", "s.y.npy"], "--save s.y.npy: the run reads this file"),
    "a set by name": (["reuters", "--log", "sets/reuters21578_earn_counts.npz"], "the run reads"),
    "each other": (["t.csv", "--save", "o", "--report", "./o"], "o and --save o are one file"),
    "checkpoint": (
        ["t.csv", "--save", "o", "--checkpoint", "o"],
        "are one file: give each its own",
    ),
}


@pytest.mark.parametrize("case", CLASHES)
def test_no_result_takes_the_place_of_what_is_needed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BILEVEL_DATA", "sets")
    for name in ("t.csv", "v.csv"):
        data(Path(name))
    Path("link.csv").symlink_to("t.csv")
    Path("hard.csv").hardlink_to("t.csv")
    Path("sets").mkdir()
    for name in ("s.npz", "s.y.npy", "sets/reuters21578_earn_counts.npz"):
        Path(name).write_text("precious")
    before = {path: path.read_bytes() for path in Path().rglob("*.*")}
    words, said = CLASHES[case]
    result = run("tune", *words)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == before


def test_a_refused_resume_leaves_the_log(tmp_path: Path) -> None:
    path, log = data(tmp_path / "t.csv"), tmp_path / "l.jsonl"
    tune = ["tune", path, "--checkpoint", tmp_path / "c.npz", "--log", log]
    assert run(*tune).exit_code == 0
    before = log.read_text()
    assert before
    assert run(*tune, "--resume", "--bounds", "-3", "3").exit_code == 2
    assert log.read_text() == before


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (ValueError("no such\nclaim"), 2, "Error: no such claim"),
        (MemoryError("too much"), 2, "does not fit into memory"),
    ],
)
def test_the_model_is_saved_before_it_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, code: int, said: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise fault

    monkeypatch.setattr(bilevel, "certify", fail)
    saved, report = tmp_path / "m.npz", tmp_path / "r.html"
    words = ["--certify", "--save", saved, "--report", report]
    result = run("tune", data(tmp_path / "t.csv"), *words)
    assert result.exit_code == code, result.output
    assert said in result.output
    assert load_model(saved).coef.shape == (1,)
    assert report.exists()


def test_ctrl_c_while_the_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(io, "read", interrupt)
    assert run("tune", data(tmp_path / "t.csv")).exit_code == 130


def test_a_method_that_does_not_suit_the_problem_is_a_sentence(tmp_path: Path) -> None:
    path = data(tmp_path / "t.csv")
    for words in (["--method", "maid"], ["--method", "maid", "--starts", "2"]):
        result = run("tune", path, "--intercept", *words)
        assert result.exit_code == 2, result.output
        assert result.output.splitlines()[-1].startswith("Error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize(
    ("redirect", "environment", "code"),
    [
        ("| head -1", {}, 0),
        ("> /dev/full", {}, 1),
        (">&-", {}, 0),
        ("> out", {"PYTHONIOENCODING": "ascii"}, 0),
    ],
)
def test_what_cannot_be_printed_costs_no_model(
    tmp_path: Path, redirect: str, environment: dict[str, str], code: int
) -> None:
    data(tmp_path / "t.csv")
    command = f"{sys.executable} -m bilevel tune t.csv --save m.npz --log l.jsonl"
    done = subprocess.run(
        ["bash", "-c", f"{command} {redirect}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env={**os.environ, **environment, "PYTHONPATH": str(Path(bilevel.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert load_model(tmp_path / "m.npz").coef.shape == (1,)
    assert (tmp_path / "l.jsonl").read_text().count("\n") > 0
    assert "Traceback" not in done.stderr
    assert ("No space left" in done.stderr) == (code == 1)
    if environment:
        assert "\\u03bb" in (tmp_path / "out").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("words", [["-q"], ["--starts", "2"], ["--checkpoint", "c", "--resume"]])
def test_a_log_that_cannot_be_written_is_said_on_stderr_and_not_called_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("tune", data(Path("t.csv")), "--log", "/dev/full", "--save", "m.npz", *words)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("Error: the log /dev/full could not be written: No space left") == 1
    assert load_model(tmp_path / "m.npz").coef.shape == (1,)
    if "-q" not in words:
        assert "written: m.npz\n" in result.stdout


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    data(Path("t.csv"))
    names = {"save": "m.npz", "plot": "p.svg", "report": "r.html", "log": "l.jsonl"}
    for name in names.values():
        Path(name).write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    options = [word for name, path in names.items() for word in (f"--{name}", path)]
    result = run("tune", "t.csv", *options)
    assert result.exit_code == 1
    assert "\nwritten:" not in result.output
    for name in names.values():
        assert Path(name).read_text() == "old"
        assert f"{name} could not be written: No space left" in result.stderr
    assert len(list(tmp_path.iterdir())) == 5  # nothing half written is left


def test_a_run_that_begins_with_no_iteration_leaves_the_log(tmp_path: Path) -> None:
    log = tmp_path / "l.jsonl"
    log.write_text("old")
    result = run("tune", "breast_cancer", "--intercept", "--max-passes", "3", "--log", log)
    assert result.exit_code == 1
    assert "not written, for want of a model" in result.output
    assert log.read_text() == "old"


def test_help_of_tune_tells_a_spent_budget_with_a_model_from_one_without() -> None:
    said = " ".join(run("tune", "--help").output.split())
    assert "a budget was spent before there was a model" in said


def test_the_labels_of_each_part_are_printed(csv: Path) -> None:
    lines = run("tune", csv, "--val", csv, "--max-iter", "1").output.splitlines()
    counts = np.bincount(io.read(csv).train.y.astype(int))
    for part in ("training", "held-out"):
        (line,) = (line for line in lines if line.startswith(f"{part} labels"))
        assert f"+1: 1 ({counts[1]}); -1: 0 ({counts[0]})" in line


@pytest.mark.parametrize("columns", ["0", "1"])
def test_a_terminal_without_columns_is_printed_to(
    csv: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    wide = run("tune", csv, "--max-iter", "1").output
    monkeypatch.setenv("COLUMNS", columns)
    narrow = run("tune", csv, "--max-iter", "1").output
    for name in ("validation loss", "status", "backend"):
        assert name in wide
        assert name in narrow


def test_what_overflows_is_told_by_the_status_alone(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    np.savez(tmp_path / "a.npz", X=X * 1e300, y=(X[:, 0] > 0).astype(int))
    result = run("tune", tmp_path / "a.npz", "--max-iter", "3")
    assert result.exit_code in (1, 2)
    assert "Error: " in result.output
    assert not [str(w.message) for w in recwarn if "encountered" in str(w.message)]


OFFSETS = {
    "date": ([3, 1, 1, 1], [20260115, 0, 0, 0]),
    "far": ([1, 1, 1, 1], [1e8, 1e8, 1e8, 1e8]),
    "Unix time": ([60, 1, 1, 1], [1.7e9, 0, 0, 0]),
}


def far_rows(path: Path, case: str, *, compressed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Write rows far from zero; return the held-out ones."""
    rng = np.random.default_rng(3)
    Z = rng.standard_normal((200, 4))
    y = np.where(Z[:, 0] - Z[:, 1] + 0.7 * rng.standard_normal(200) > 0, 1.0, -1.0)
    spread, offset = OFFSETS[case]
    parts = {}
    for name, rows in (("train", slice(100)), ("val", slice(100, None))):
        parts |= {f"X_{name}": Z[rows] * spread + offset, f"y_{name}": y[rows]}
        if compressed:
            X = sparse.csr_matrix(parts.pop(f"X_{name}"))
            parts |= {
                f"X_{name}_{field}": getattr(X, field)
                for field in ("data", "indices", "indptr", "shape")
            }
    np.savez(path, **parts)
    return Z[100:] * spread + offset, y[100:]


@pytest.mark.parametrize("case", OFFSETS)
@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_columns_are_standardised_before_they_are_rounded(
    tmp_path: Path, case: str, dtype: str
) -> None:
    """They were rounded first: dates lost all digits, and the saved model had another loss."""
    X, y = far_rows(tmp_path / "a.npz", case)
    words = ("tune", tmp_path / "a.npz", "--standardize", "--intercept", "--save")
    losses = {}
    for kind in ("float64", dtype):
        result = run(*words, tmp_path / "m.npz", "--dtype", kind)
        assert result.exit_code == 0, result.output
        losses[kind] = float(re.search(r"validation loss +([\d.]+)", result.output)[1])
        model = load_model(tmp_path / "m.npz")
        margins = X.astype(np.longdouble) @ model.coef.astype(np.longdouble) + model.intercept
        exact = float(np.logaddexp(0, -y * margins).sum())
        assert losses[kind] == pytest.approx(exact, abs=1e-5)
    assert losses[dtype] == pytest.approx(losses["float64"], rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize("words", [["--standardize"], []])
def test_columns_that_float32_does_not_hold_are_refused_by_name(
    tmp_path: Path, dtype: str, words: list[str]
) -> None:
    """Centring a sparse matrix would fill it; and what is not standardised stays as it is."""
    far_rows(tmp_path / "a.npz", "date", compressed=bool(words))
    result = run("tune", tmp_path / "a.npz", *words, "--dtype", dtype)
    assert result.exit_code == 2
    assert "float32 rounds feature 1, of mean 2.02601e+07, by" in result.output
    assert ("give --standardize, which" in result.output) is (not words)
    assert run("tune", tmp_path / "a.npz", "--standardize", "--max-iter", "1").exit_code == 0


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
def test_a_dtype_that_the_library_does_not_give_is_refused(csv: Path) -> None:
    """JAX computes in float32 unless told otherwise, and float64 was printed."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        for dtype in ("float64", "mixed"):
            result = run("tune", csv, "--backend", "jax", "--dtype", dtype)
            assert result.exit_code == 2, result.output
            assert "JAX_ENABLE_X64=1" in result.output
    finally:
        jax.config.update("jax_enable_x64", before)


def test_the_classes_of_a_model_against_all_others_have_two_names(tmp_path: Path) -> None:
    """The positive one may be called "other"."""
    rows = "".join(f"{i}.5,{('a', 'b', 'other')[i * 5 % 3]}\n" for i in range(12))
    (tmp_path / "a.csv").write_text("x,y\n" + rows)
    words = ("--positive", "other", "--max-iter", "2", "-q", "--save", tmp_path / "m.npz")
    assert run("tune", tmp_path / "a.csv", *words).exit_code == 0
    assert load_model(tmp_path / "m.npz").classes.tolist() == ["not other", "other"]


@pytest.mark.parametrize(
    ("y", "words", "expected"),
    [
        (np.array([0.0, 1.0]), (), ["0", "1"]),
        (np.array([-1, 1]), (), ["-1", "1"]),
        (np.array([False, True]), (), ["False", "True"]),
        (np.array([2.0, 7.5]), ("--positive", "7.5"), ["2", "7.5"]),
        (np.array([0.0, 1.0, 2.0]), ("--positive", "1"), ["not 1", "1"]),
        (np.array(["no", "yes"]), ("--positive", "yes"), ["no", "yes"]),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_the_classes_of_a_model_are_those_that_the_summary_names(
    tmp_path: Path, y: np.ndarray, words: tuple[str, ...], expected: list[str], suffix: str
) -> None:
    """Labels 0 and 1 of a CSV file were the classes '0.0' and '1.0'."""
    X, labels = np.arange(24.0)[:, None] * 1.7 % 3, np.resize(y, 24)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, X=X, y=labels)
    elif labels.dtype == bool:
        words = ("--positive", "True")  # text, as a file of text has it
    if suffix == "csv":
        texts = [f"{v:g}" if labels.dtype.kind == "f" else str(v) for v in labels.tolist()]
        rows = [f"{x!r},{text}" for x, text in zip(X[:, 0].tolist(), texts, strict=True)]
        path.write_text("x,y\n" + "\n".join(rows) + "\n")
    result = run("tune", path, *words, "--max-iter", "2", "--save", tmp_path / "m.npz")
    assert result.exit_code == 0, result.output
    assert load_model(tmp_path / "m.npz").classes.tolist() == expected
    assert f"+1: {expected[1]} (" in result.output


@pytest.mark.parametrize("words", [(), ("--standardize",), ("--dtype", "float32")])
@pytest.mark.parametrize("value", [1e300, -1e160])
def test_a_number_whose_square_overflows_is_named(
    csv: Path, words: tuple[str, ...], value: float
) -> None:
    """It was a solve that failed by NaN, and a model of zeros."""
    lines = csv.read_text().splitlines()
    cells = lines[5].split(",")
    lines[5] = ",".join([cells[0], f"{value:g}", *cells[2:]])
    csv.write_text("\n".join(lines) + "\n")
    result = run("tune", csv, *words)
    assert result.exit_code == 2
    assert f"column 'b' holds {value:g}" in result.output


def test_large_numbers_whose_squares_do_not_overflow_are_taken(csv: Path) -> None:
    lines = csv.read_text().splitlines()
    scaled = [
        ",".join([f"{1e30 * float(c):g}" if j == 1 else c for j, c in enumerate(cells)])
        for cells in (line.split(",") for line in lines[1:])
    ]
    csv.write_text("\n".join([lines[0], *scaled]) + "\n")
    assert run("tune", csv, "--standardize", "-q").exit_code == 0


def test_a_file_without_a_last_line_end_has_a_note(tmp_path: Path) -> None:
    rows = "".join(f"{(-1) ** i} 1:{i}.5 2:{10 + i * i % 7}\n" for i in range(20))
    whole, cut = tmp_path / "whole.svm", tmp_path / "cut.svm"
    whole.write_text(rows)
    cut.write_text(rows[:-2])
    tune = ("--val", "0.5", "--max-iter", "1")
    assert "has no end" not in run("tune", whole, *tune).output
    said = " ".join(run("tune", cut, *tune).output.split())
    assert "cut.svm: its last line has no end" in said
    assert said.count("has no end") == 1
    assert "has no end" in run("tune", whole, "--val", cut, "--max-iter", "1").output


def test_passes_of_all_searches_are_told_where_none_ended(tmp_path: Path) -> None:
    result = run("tune", "breast_cancer", "--starts", "3", "--max-passes", "1")
    assert result.exit_code == 1
    assert re.search(r"passes over the data +1 together", result.output)


@pytest.mark.parametrize("words", [("--intercept",), ()])
def test_maid_says_what_an_intercept_lacks(csv: Path, words: tuple[str, ...]) -> None:
    result = run("tune", csv, "--method", "maid", "--max-iter", "2", *words)
    assert result.exit_code == (2 if words else 0)
    if words:
        assert "an intercept" in result.output and "'path' or 'hoag'" in result.output


@pytest.mark.parametrize("bounds", ["3 -3", "nan 1", "inf inf"])
def test_bounds_that_are_none_name_the_option(tmp_path: Path, bounds: str) -> None:
    low, high = bounds.split()
    result = run("tune", data(tmp_path / "t.csv"), "--bounds", low, high)
    assert result.exit_code == 2
    assert f"Error: --bounds {bounds}: " in result.output


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
runpy.run_module("bilevel", run_name="__main__", alter_sys=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits are set as on POSIX")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--log", "l.jsonl"], 1, "Error: the log l.jsonl could not be written: File too large."),
        (["--checkpoint", "c"], 0, "note: The checkpoint c could not be written: File too large."),
    ],
)
def test_files_that_may_hold_nothing_cost_a_sentence(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    data(tmp_path / "t.csv")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "tune", "t.csv", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(bilevel.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("OMP: ")]  # of MKL
    assert done.returncode == code
    assert [line.replace(f"{tmp_path}{os.sep}", "") for line in lines] == [
        f"{said} The run goes on."
    ]


@pytest.mark.parametrize(("scale", "code"), [(1e-170, 2), (1e-100, 0), (0.0, 0)])
def test_a_column_whose_squares_underflow_is_named(csv: Path, scale: float, code: int) -> None:
    """It stayed as it was where columns were to be standardised; of zeros nothing is to say."""
    first, *lines = csv.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    scaled = [",".join([c[0], f"{scale * float(c[1]):g}", *c[2:]]) for c in rows]
    csv.write_text("\n".join([first, *scaled]) + "\n")
    result = run("tune", csv, "--standardize", "--max-iter", "50")
    assert result.exit_code == code, result.output
    assert ("column 'b' holds numbers of at most" in result.output) == (code == 2)


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """Rows of four classes, -2, 1, 4 and 7, with columns far from zero and of unlike scales."""
    rng = np.random.default_rng(0)
    means, arrays = 0.4 * rng.standard_normal((4, 8)), {}
    for part, n in (("train", 300), ("val", 200), ("test", 100)):
        y = rng.integers(0, 4, n)
        X = (rng.standard_normal((n, 8)) + means[y]) * np.geomspace(3, 0.1, 8) + 2
        arrays |= {f"X_{part}": X, f"y_{part}": 3 * y - 2}
    np.savez(tmp_path / "e.npz", **arrays)
    return tmp_path / "e.npz"


def parts(path: Path) -> tuple[np.ndarray, ...]:
    found = np.load(path)
    return tuple(found[f"{name}_{part}"] for part in ("train", "val", "test") for name in "Xy")


def in_a_row(output: str, name: str) -> str:
    (line,) = (line for line in output.splitlines() if line.startswith(name + " "))
    return line.removeprefix(name).strip()


@pytest.mark.parametrize("words", [("--intercept",), (), ("--intercept", "--method", "hoag")])
def test_several_classes_are_their_model_at_the_c_found(
    embeddings: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    linear, metrics = map(pytest.importorskip, ("sklearn.linear_model", "sklearn.metrics"))
    result = run("tune", embeddings, *words, "--save", tmp_path / "m.npz")
    assert result.exit_code == 0, result.output
    X, y, X_val, y_val, X_test, y_test = parts(embeddings)
    model = load_model(tmp_path / "m.npz")
    C = float(np.exp(-model.lam[0]))
    theirs = linear.LogisticRegression(
        C=C, tol=1e-10, max_iter=10_000, fit_intercept="--intercept" in words
    ).fit(X, y)
    assert model.coef.shape == (4, 8)
    assert model.classes.tolist() == [-2, 1, 4, 7]
    np.testing.assert_allclose(model.coef, theirs.coef_, atol=1e-5 * np.abs(theirs.coef_).max())
    shift = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(model.intercept, shift, atol=1e-3)
    np.testing.assert_array_equal(model.predict(X_test), theirs.predict(X_test))
    for name, rows, labels in (("validation", X_val, y_val), ("test", X_test, y_test)):
        loss = float(in_a_row(result.output, f"{name} log loss").removesuffix(" a row"))
        assert loss == pytest.approx(metrics.log_loss(labels, theirs.predict_proba(rows)), abs=2e-6)
        accuracy = in_a_row(result.output, f"{name} accuracy")
        assert accuracy == f"{theirs.score(rows, labels):.2%}"


@pytest.mark.parametrize("words", [(), ("--refit",)])
@pytest.mark.parametrize("standardize", [False, True])
def test_several_classes_are_the_probe_of_python(
    embeddings: Path, tmp_path: Path, standardize: bool, words: tuple[str, ...]
) -> None:
    X, y, X_val, y_val, *_ = parts(embeddings)
    known = bilevel.probe(X, y, X_val, y_val, standardize=standardize, refit=bool(words))
    scaled = ("--standardize",) if standardize else ()
    log = tmp_path / "l.jsonl"
    result = run(
        *("tune", embeddings, "--intercept", *scaled, *words, "--save", tmp_path / "m.npz"),
        *("--log", log, "--report", tmp_path / "r.html", "--plot", tmp_path / "p.svg"),
    )
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "m.npz")
    assert np.exp(-model.lam[0]) == pytest.approx(known.C, rel=1e-6)
    np.testing.assert_allclose(model.coef, known.coef, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(model.intercept, known.intercept, rtol=1e-5, atol=1e-7)
    # The numbers are those without the refit.
    assert in_a_row(result.output, "validation log loss") == f"{known.log_loss:.6f} a row"
    assert in_a_row(result.output, "validation accuracy") == f"{known.accuracy:.2%}"
    assert (tmp_path / "r.html").read_text().count("multinomial") > 0
    table = [line.split() for line in result.output.splitlines() if re.match(r" +\d+ ", line)]
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(table) == len(records) == len(known.steps)
    for shown, record, step in zip(table, records, known.steps, strict=True):
        assert shown[2:5] == [f"{step.C:.4g}", f"{step.log_loss:.6f}", f"{step.accuracy:.2%}"]
        assert record["details"] == {"accuracy": pytest.approx(step.accuracy)}


def test_refit_of_two_classes_fits_all_rows_at_the_lambda_found(csv: Path, tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    outputs, models = [], []
    for words in ((), ("--refit",)):
        path = tmp_path / f"{len(words)}.npz"
        result = run("tune", csv, "--intercept", *words, "--save", path)
        assert result.exit_code == 0, result.output
        outputs.append(in_a_row(result.output, "validation loss"))
        models.append(load_model(path))
    assert outputs[0] == outputs[1]
    plain, refitted = models
    np.testing.assert_array_equal(plain.lam, refitted.lam)
    table = io.read(csv).train
    C = float(np.exp(-plain.lam[0]))
    theirs = linear.LogisticRegression(C=C, tol=1e-10, max_iter=1000).fit(table.X, table.y)
    np.testing.assert_allclose(refitted.coef, theirs.coef_[0], rtol=1e-4, atol=1e-7)
    assert np.abs(plain.coef - refitted.coef).max() > 1e-3
    found = refitted.predict(table.X)
    assert found.tolist() == [f"{label:g}" for label in theirs.predict(table.X)]


def test_formats_give_as_good_a_model_of_several_classes(embeddings: Path, tmp_path: Path) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    X, y, *_ = parts(embeddings)
    (tmp_path / "a.csv").write_text(
        "".join(
            ",".join(f"{v:.17g}" for v in row) + f",{label}\n"
            for row, label in zip(X, y, strict=True)
        )
    )
    (tmp_path / "a.svm").write_text(
        "".join(
            f"{label} " + " ".join(f"{j}:{v:.17g}" for j, v in enumerate(row, 1)) + "\n"
            for row, label in zip(X, y, strict=True)
        )
    )
    np.savez(tmp_path / "a.npz", X=X, y=y)
    losses = []
    for suffix in ("npz", "csv", "svm"):
        path = tmp_path / f"{suffix}_m.npz"
        header = ("--no-header",) if suffix == "csv" else ()
        words = ("--intercept", "--refit", "--save", path)
        result = run("tune", tmp_path / f"a.{suffix}", *header, *words)
        assert result.exit_code == 0, result.output
        losses.append(float(in_a_row(result.output, "validation log loss").split()[0]))
        model = load_model(path)
        C = float(np.exp(-model.lam[0]))
        theirs = linear.LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, y)
        np.testing.assert_allclose(model.coef, theirs.coef_, atol=1e-5 * abs(theirs.coef_).max())
    assert losses[1] == losses[0]
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)  # found by other products


def test_a_file_in_float32_stays_so_where_there_are_several_classes(
    embeddings: Path, tmp_path: Path
) -> None:
    X, y, *_ = parts(embeddings)
    np.savez(tmp_path / "f.npz", X=X.astype(np.float32), y=y)
    for words, dtype in ((), "float32"), (("--dtype", "float64"), "float64"):
        path = tmp_path / f"{dtype}.npz"
        result = run("tune", tmp_path / "f.npz", "--intercept", *words, "--save", path)
        assert result.exit_code == 0, result.output
        assert load_model(path).lam.dtype == dtype
    single, double = (load_model(tmp_path / f"float{bits}.npz") for bits in (32, 64))
    assert single.lam[0] == pytest.approx(double.lam[0], abs=0.2)  # f is flat there


def test_several_classes_resume_and_are_certified(embeddings: Path, tmp_path: Path) -> None:
    tune = ("tune", embeddings, "--intercept", "--tol", "0", "--save")
    assert run(*tune, tmp_path / "whole.npz", "--max-iter", "4", "-q").exit_code == 0
    kept = ("--checkpoint", tmp_path / "c.npz", "--resume")
    assert run(*tune, tmp_path / "half.npz", "--max-iter", "2", "-q", *kept).exit_code == 0
    result = run(*tune, tmp_path / "both.npz", "--max-iter", "4", "--certify", *kept)
    assert result.exit_code == 0
    assert "Theorem 2" in result.output
    assert "violated" not in result.output
    whole, both = (load_model(tmp_path / f"{name}.npz") for name in ("whole", "both"))
    assert whole.lam.tobytes() == both.lam.tobytes()
    assert whole.coef.tobytes() == both.coef.tobytes()


def test_the_model_of_two_classes_by_name_has_a_row_for_each(csv: Path, tmp_path: Path) -> None:
    words = ("--model", "multinomial", "--starts", "2", "-q", "--save", tmp_path / "m.npz")
    assert run("tune", csv, *words).exit_code == 0
    model = load_model(tmp_path / "m.npz")
    np.testing.assert_allclose(model.coef[0], -model.coef[1], atol=1e-6)
    assert model.classes.tolist() == [0, 1]


SEVERAL = "a,y\n" + "".join(f"{i}.5,{i % 3}\n" for i in range(12))
BAD_CLASSES = {
    "no integers": (
        SEVERAL.replace(",2\n", ",2.5\n"),
        (),
        "a.csv, line 4: the labels are not binary: 3 different ones (0, 1, 2.5), and 2.5 is no",
    ),
    "text": (SEVERAL.replace(",2\n", ",two\n"), (), "(0, 1, two), and 0 is no integer"),
    "one row": (SEVERAL + "3,9\n", (), "a.csv, line 14: the labels are not binary: 4 different"),
    "left out": (SEVERAL, ("--val", "0.9"), "the split leaves no row of the class"),
    "one class": ("a,y\n1,4\n2,4\n", ("--model", "multinomial"), "every label is 4"),
    "by name": (SEVERAL, ("--model", "logistic"), "Choose one class against the others"),
    "too many": (
        "a,y\n" + "".join(f"{i}.5,{i % 1001}\n" for i in range(3003)),
        (),
        "Give at most 1,000 classes",
    ),
    "held out": (SEVERAL, ("--val", "b.csv"), "b.csv, line 3: the label 5 is none of the training"),
    "test": (SEVERAL, ("--test", "t.csv"), "t.csv, line 2: its labels are text, as one"),
    "positive": (SEVERAL, ("--model", "multinomial", "--positive", "1"), "leave it out"),
    "refit": (SEVERAL, ("--refit",), "needs --save FILE"),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_classes_that_cannot_be_used_are_one_sentence(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, words, message = BAD_CLASSES[case]
    Path("a.csv").write_text(text)
    Path("b.csv").write_text("a,y\n1,0\n2,5\n")
    Path("t.csv").write_text("a,y\n1,one\n2,two\n")
    result = run("tune", "a.csv", *words)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_a_thousand_classes_and_one_row_each_with_held_out_rows_of_their_own(
    tmp_path: Path,
) -> None:
    """A class of one row is no fault where nothing is split."""
    y = np.arange(1000)
    X = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", X_train=X, y_train=y, X_val=X + 0.1, y_val=y)
    result = run("tune", tmp_path / "a.npz", "--max-iter", "1", "--save", tmp_path / "m.npz")
    assert result.exit_code == 0, result.output
    assert load_model(tmp_path / "m.npz").coef.shape == (1000, 3)


@pytest.mark.parametrize("dtype", ["float32", "mixed"])
@pytest.mark.parametrize(("scale", "offset", "code"), [(1e6, 0, 0), (1e-3, 1e3, 2)])
def test_centring_alone_judges_a_sparse_column_by_its_spread(
    tmp_path: Path, dtype: str, scale: float, offset: float, code: int
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = np.column_stack([rng.standard_normal(60) + y, scale * rng.standard_normal(60) + offset])
    rows = (
        f"{k} 1:{a:.17g} 2:{b:.17g}\n" for k, (a, b) in zip(y.tolist(), X.tolist(), strict=True)
    )
    (tmp_path / "a.svm").write_text("".join(rows))
    result = run("tune", tmp_path / "a.svm", "--intercept", "--dtype", dtype, "--max-iter", "2")
    assert result.exit_code == code, result.output
    assert ("float32 rounds feature 2" in result.output) == (code == 2)


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_libraries_find_the_same_classes(embeddings: Path, tmp_path: Path, name: str) -> None:
    models = []
    for backend in ("numpy", name):
        path = tmp_path / f"{backend}.npz"
        words = ("--intercept", "--standardize", "--refit", "--backend", backend, "--save", path)
        result = run("tune", embeddings, *words)
        if result.exit_code == 2 and "not installed" in result.output:
            pytest.skip(f"{name} is not installed")
        assert result.exit_code == 0, result.output
        models.append(load_model(path))
    one, other = models
    np.testing.assert_allclose(other.lam, one.lam, rtol=1e-6)
    np.testing.assert_allclose(other.coef, one.coef, rtol=1e-5, atol=1e-8)
