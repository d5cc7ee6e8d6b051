"""A registered model as MLflow runs it ("models from code"): images in, label and score out.

MLflow copies this file into every model and runs the copy wherever the model is loaded. So it
imports none of our packages by name: the entry point in the model's configuration
(`loader: "module:function"`) turns the model's folder into an object that has `predict`.
"""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ImageModel(PythonModel):
    """Images as they come: a uint8 array (n, h, w[, c]), or a list of arrays of any sizes."""

    def load_context(self, context) -> None:
        module, _, function = context.model_config["loader"].partition(":")
        load = getattr(importlib.import_module(module), function)
        self.model = load(Path(context.artifacts["model"]))

    # MLflow knows no type hint for "array or list of arrays", and warns of any other; with this
    # one it passes on what it was given.
    def predict(self, context, model_input: np.ndarray, params=None) -> pd.DataFrame:
        """A row for each image, with the columns `label` (1 is tumour) and `score`."""
        return self.model.predict([as_image(image) for image in model_input])


def as_image(image: np.ndarray | list) -> np.ndarray:
    """One image; over HTTP it comes as nested lists."""
    if isinstance(image, list):
        image = np.asarray(image, dtype=np.uint8)
    if np.ndim(image) not in (2, 3):
        raise ValueError(
            f"An image must be an array (height, width[, channels]), got shape {np.shape(image)}: "
            f"pass a single image as [image]."
        )
    return image


set_model(ImageModel())
