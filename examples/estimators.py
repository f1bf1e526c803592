"""Estimators that tune themselves, alone and at the end of a pipeline, beside a grid search."""

import time

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from bilevel.estimators import BilevelLogisticRegression, HyperparameterSearchCV

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
pipeline = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=1000))
candidates = {
    "BilevelLogisticRegression": make_pipeline(MinMaxScaler(), BilevelLogisticRegression(cv=3)),
    "HyperparameterSearchCV": HyperparameterSearchCV(pipeline, cv=3),
    "GridSearchCV": GridSearchCV(
        pipeline,
        {"logisticregression__C": [0.01, 0.1, 1.0, 10.0, 100.0]},
        cv=3,
        scoring="neg_log_loss",
    ),
}
for name, model in candidates.items():
    start = time.perf_counter()
    model.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    tuned = model[-1] if hasattr(model, "steps") else model
    C = tuned.C_ if hasattr(tuned, "C_") else tuned.best_params_["logisticregression__C"]
    print(f"{name:26s} C = {C:8.4g}, mean held-out loss {-tuned.best_score_:.5f}, {seconds:.1f} s")

path = candidates["BilevelLogisticRegression"][-1].path_
print("path: " + ", ".join(f"λ = {record.lam[0]:.3f}" for record in path))
