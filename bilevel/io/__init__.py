r"""Files in, host arrays out: LIBSVM, .npz and CSV, with errors that name file, line and cure.

>>> import numpy as np, tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp()) / "two.csv"
>>> _ = path.write_text("height,label\n1.5,0\n2.5,1\n")
>>> read(path).train.X
array([[1.5],
       [2.5]])
"""

from __future__ import annotations

from ._read import Format, ReadOptions, format_of, read
from ._table import BadFileError, Dataset, Table, same_features
from .labels import BinaryLabels, ClassLabels
from .log import JSONLines, write_log
from .model import LinearClassifier, load_model, save_model
from .split import split

__all__ = [
    "BadFileError",
    "BinaryLabels",
    "ClassLabels",
    "Dataset",
    "Format",
    "JSONLines",
    "LinearClassifier",
    "ReadOptions",
    "Table",
    "format_of",
    "load_model",
    "read",
    "same_features",
    "save_model",
    "split",
    "write_log",
]
