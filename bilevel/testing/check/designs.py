"""A design of an author's own, inside of a linear model: products, rows, counters, promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._untouched import Untouched
from ...backends import described
from ...design import Design, Passes, Rounds, Summing
from .._probe import Probe, Vector, length
from .differences import share
from .places import Place
from .report import Book

#: So many rows and columns are taken out by products with unit vectors.
_CHOSEN = 6


def designs(place: Place, book: Book) -> None:
    """The designs of h and of g, where these are made of one."""
    for name, side in (("inner", place.probe.problem.inner), ("outer", place.probe.problem.outer)):
        design = getattr(side, "design", None)
        if isinstance(design, Design):
            _Asked.of(f"{name}.design", design, place, book).all()


@dataclass(frozen=True)
class _Asked:
    """A design with some of its rows and columns, and what is asked of it."""

    what: str
    design: Any
    probe: Probe
    book: Book
    smallest: float
    rows: Any
    columns: Any

    @classmethod
    def of(cls, what: str, design: Any, place: Place, book: Book) -> _Asked:
        n, p = design.shape
        rows, columns = (
            np.sort(book.rng.choice(size, min(_CHOSEN, size), replace=False)) for size in (n, p)
        )
        return cls(what, design, place.probe, book, place.smallest, rows, columns)

    def all(self) -> None:
        for name, check in (
            ("passes", self._counts),
            ("gram_diag", self._untouched),
            ("rmatmul", self._adjoint),
            ("gram_diag", self._gram),
            ("square_matmul", self._squares),
            ("centred_rounding", self._centred),
            ("rows", self._rows),
        ):
            with self.book.asking(f"{self.what}.{name}"):
                check()
        if isinstance(self.design, Summing):
            with self.book.asking(f"{self.what}.longest_row"):
                self._sums()
        if isinstance(self.design, Rounds):
            with self.book.asking(f"{self.what}.rounded", "rounded() is a method"):
                self._rounded()

    # -- products -------------------------------------------------------------------------------

    @property
    def eps(self) -> float:
        return self.probe.eps

    def send(self, v: Vector) -> Any:
        return self.probe.send(v, v.shape)

    def host(self, array: Any) -> Vector:
        return self.probe.host(array).reshape(tuple(array.shape))

    def matmul(self, v: Vector) -> Vector:
        return self.host(self.design.matmul(self.send(v)))

    def rmatmul(self, r: Vector) -> Vector:
        return self.host(self.design.rmatmul(self.send(r)))

    def drawn(self, *shape: int) -> Vector:
        return np.asarray(self.book.rng.standard_normal(shape), dtype=np.float64)

    def _taken(self) -> tuple[Vector, Vector]:
        """The chosen columns (n, k), and the chosen rows (k, p)."""
        n, p = self.design.shape
        return self.matmul(np.eye(p)[:, self.columns]), self.rmatmul(np.eye(n)[:, self.rows]).T

    def same(self, name: str, claimed: Vector, truth: Vector, scale: float, reference: str) -> None:
        self.book.compare(
            f"{self.what}.{name}",
            claimed.reshape(-1),
            truth.reshape(-1),
            10 * share(self.eps) * scale + 10 * truth.size * self.smallest,
            share=10 * share(self.eps),
            reference=reference,
        )

    def _untouched(self) -> None:
        """All products leave their arguments and each other alone, of several columns too."""
        n, p = self.design.shape
        held = Untouched(self.design.backend, self.design.dtype)
        for _ in range(2):
            for name, rows in (
                ("matmul", p),
                ("rmatmul", n),
                ("gram_diag", n),
                ("square_matmul", p),
            ):
                for shape in ((rows,), (rows, 2)):
                    given = held.lend("its argument", self.send(np.abs(self.drawn(*shape))))
                    held.keep(name, getattr(self.design, name)(given))
                    held.called(name)
        for name, fault in held.faults():
            self.book.add(f"{self.what}.{name}", "", math.inf, f"it {fault}", None)

    def _adjoint(self) -> None:
        n, p = self.design.shape
        v, r = self.drawn(p), self.drawn(n)
        Xv, Xr = self.matmul(v), self.rmatmul(r)
        scale = length(Xv) * length(r) + length(Xr) * length(v)
        self.same(
            "rmatmul", np.array([Xr @ v]), np.array([r @ Xv]), scale, "⟨r, X v⟩ for ⟨Xᵀ r, v⟩ would"
        )

    def _gram(self) -> None:
        """Diag(X_cᵀ diag(d) X_c) by columns, with a centre and without, one d and several."""
        n, p = self.design.shape
        columns, _ = self._taken()
        for centre in (None, self.drawn(p)):
            moved = columns - (0.0 if centre is None else centre[self.columns])
            for d in (np.abs(self.drawn(n)), np.abs(self.drawn(n, 2))):
                sent = None if centre is None else self.send(centre)
                found = self.host(self.design.gram_diag(self.send(d), sent))
                truth = (moved**2).T @ d
                if found.shape != (p, *d.shape[1:]):
                    message = f"got the shape {found.shape}, expected {(p, *d.shape[1:])}."
                    self.book.add(f"{self.what}.gram_diag", "", math.inf, message, None)
                    return
                scale = length(truth) + float(np.sum(d)) * length(columns**2)
                found, scale = found[self.columns], self._rest(scale)
                self.same("gram_diag", found, truth, scale, "columns of X")

    def _centred(self) -> None:
        """The squares about the mean, where they are said to be centred before they are taken."""
        n, _ = self.design.shape
        stated = float(self.design.centred_rounding)
        self.book.made(f"{self.what}.centred_rounding")
        if stated >= self.eps:
            return
        columns, _ = self._taken()
        weights = np.full(n, 1 / n)
        mean = self.host(self.design.rmatmul(self.send(weights)))
        found = self.host(self.design.gram_diag(self.send(weights), self.send(mean)))[self.columns]
        wide = columns.astype(np.longdouble)
        truth = np.mean((wide - mean[self.columns]) ** 2, axis=0)
        squares = np.mean(wide**2, axis=0)
        # An entry is known to one rounding, and the sums to some of them.
        slack = 4 * self.eps * np.sqrt(truth * squares) + 2 * n**0.5 * self.eps * truth
        excess = np.abs(found - truth) - slack - 10 * n * self.smallest
        most = float(np.max(excess / np.maximum(squares, self.smallest)))
        if most > 10 * stated:
            message = f"{stated:.2g} is stated but gram_diag(d, mean) is off by {most:.2g}."
            cause = "squares that are centred after they are taken cancel: say some eps"
            self.book.add(f"{self.what}.centred_rounding", "", most, message, cause)

    def _squares(self) -> None:
        """(X_c∘X_c) v by rows."""
        _, p = self.design.shape
        _, rows = self._taken()
        for centre in (None, self.drawn(p)):
            moved = rows - (0.0 if centre is None else centre)
            for v in (np.abs(self.drawn(p)), np.abs(self.drawn(p, 2))):
                sent = None if centre is None else self.send(centre)
                found = self.host(self.design.square_matmul(self.send(v), sent))
                truth = moved**2 @ v
                scale = length(truth) + length(rows**2) * length(v)
                found, scale = found[self.rows], self._rest(scale)
                self.same("square_matmul", found, truth, scale, "rows of X")

    def _rest(self, scale: float) -> float:
        """What cancels where a centre is subtracted: sums of squares are right to their units."""
        return 1e3 * self.eps / share(self.eps) * scale

    # -- counters -------------------------------------------------------------------------------

    def _counts(self) -> None:
        """Each product counts once, each of its columns in ``columns``."""
        what, (n, p) = f"{self.what}.passes", self.design.shape
        passes = self.design.passes
        if not isinstance(passes, Passes):
            message = f"got {described(passes)}, expected a bilevel.design.Passes."
            self.book.add(what, "", math.inf, message, "a number where a counter is meant")
            return
        products: tuple[tuple[str, Callable[[], Any], int], ...] = (
            ("matmul", lambda: self.matmul(self.drawn(p)), 1),
            ("rmatmul", lambda: self.rmatmul(self.drawn(n)), 1),
            ("matmul of 3 columns", lambda: self.matmul(self.drawn(p, 3)), 3),
            ("rmatmul of 3 columns", lambda: self.rmatmul(self.drawn(n, 3)), 3),
        )
        for name, product, columns in products:
            before = passes.total, passes.columns
            product()
            found = passes.total - before[0], passes.columns - before[1]
            if found != (1, columns):
                message = (
                    f"{name} counts {found[0]:.6g} passes with {found[1]:.6g} columns, expected "
                    f"1 with {columns}."
                )
                cause = "each product calls passes.count_forward(v) or count_backward(r), once"
                self.book.add(what, "", math.inf, message, cause)
                return

    def _rows(self) -> None:
        """The rows in the order asked for, and a counter of their own."""
        what, (_, p) = f"{self.what}.rows", self.design.shape
        index = self.book.rng.permutation(self.rows)
        part, v = self.design.rows(index), self.drawn(p)
        before = self.design.passes.total
        found = self.host(part.matmul(self.send(v)))
        if self.design.passes.total != before:
            message = "a product of some rows counts as one of all of them."
            cause = "rows(index) has a counter of its own: a new Passes()"
            self.book.add(f"{what} (passes)", "", math.inf, message, cause)
        truth = self.matmul(v)[index]
        self.same("rows", found, truth, length(truth), "these rows of the product")

    # -- promises -------------------------------------------------------------------------------

    def _sums(self) -> None:
        """Products are sums of products of entries: right to the roundings of ``longest_row``."""
        what, (_, p) = f"{self.what}.longest_row", self.design.shape
        _, rows = self._taken()
        terms, v = self.design.longest_row, self.drawn(p)
        most = int(np.max(np.count_nonzero(rows, axis=1)))
        if not terms >= most:
            message = f"got {terms}, but a row has {most} entries."
            self.book.add(what, "", math.inf, message, "the mean of the rows, not the longest")
            return
        v = self.probe.host(self.send(v))  # as the dtype has it
        wide = np.longdouble
        truth = rows.astype(wide) @ v.astype(wide)
        off = np.abs(self.matmul(v)[self.rows].astype(wide) - truth)
        sizes = np.abs(rows) @ np.abs(v)
        allowed = (terms + 8) * self.eps * sizes + p * self.smallest
        j = int(np.argmax(off - allowed))
        if off[j] > allowed[j]:
            message = (
                f"a product is {float(off[j]):.3g} from the sum over its row, expected at most "
                f"{allowed[j]:.3g} of {terms} terms."
            )
            cause = "a transform, a product of matrices or entries of less precision: leave it out"
            self.book.add(what, "", float(off[j] / allowed[j]), message, cause)

    def _rounded(self) -> None:
        """The same matrix in single precision, on the same counter."""
        what, rounded = f"{self.what}.rounded", self.design.rounded()
        if rounded is None:
            return
        v = self.drawn(self.design.shape[1])
        before = self.design.passes.total
        found = self.host(rounded.matmul(self.send(v)))
        if not self.design.passes.total > before:
            message = "its products count nothing on the counter of the design."
            self.book.add(f"{what} (passes)", "", math.inf, message, "one counter serves both")
        truth = self.matmul(v)
        self.book.compare(
            what, found, truth, 0.0, share=1e-4, reference="products of the design itself"
        )
