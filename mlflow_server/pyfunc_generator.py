"""A registered generator as MLflow runs it ("models from code"): classes and seeds in, slices out.

MLflow copies this file into every model and runs the copy wherever the model is loaded. So it
imports none of our packages by name: the entry point in the model's configuration
(`loader: "module:function"`) turns the model's folder into an object that has `generate`.
"""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class SliceModel(PythonModel):
    """Rows with `label` (0 no tumour, 1 tumour) and `seed`, from which each slice is drawn."""

    def load_context(self, context) -> None:
        module, _, function = context.model_config["loader"].partition(":")
        load = getattr(importlib.import_module(module), function)
        self.model = load(Path(context.artifacts["model"]))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> np.ndarray:
        """A slice a row, uint8 (n, 128, 128); equal rows are equal slices."""
        return self.model.generate(model_input["label"].to_numpy(), model_input["seed"].to_numpy())


set_model(SliceModel())
