"""Predictions at the training rows themselves, for criteria that need no other data."""

from __future__ import annotations

from ..design import recounted
from ..inner.kernel_ridge import KernelRidge
from ..inner.linear import LinearModel
from ._predictor import LinearPredictor, Predictor
from .kernel import KernelPredictor


def fitted(model: LinearModel | KernelRidge) -> Predictor:
    """Predict the rows that the model is trained on; products are counted apart."""
    if isinstance(model, KernelRidge):
        return KernelPredictor(model, model.X)
    return LinearPredictor(recounted(model.design))
