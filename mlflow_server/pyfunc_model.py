"""A registered model as MLflow runs it ("models from code"): images in, label and score out.

MLflow copies this file into every model and runs the copy wherever the model is loaded. So it
imports none of our packages by name: the entry point in the model's configuration
(`loader: "module:function"`) turns the model's folder into an object that has `predict`.
"""

import base64
import binascii
import importlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image, UnidentifiedImageError


class ImageModel(PythonModel):
    """Images as they come: a uint8 array (n, h, w[, c]), or a list of arrays of any sizes.

    Over HTTP an image is nested lists of pixels, or the base64 text of a PNG or JPEG file (what
    Pillow reads).
    """

    def load_context(self, context) -> None:
        module, _, function = context.model_config["loader"].partition(":")
        load = getattr(importlib.import_module(module), function)
        self.folder = Path(context.artifacts["model"])
        # A server answers in threads, and OpenMP keeps helpers for every thread that calculates.
        # Where there are more of them than cores they sleep between layers, which takes half as
        # long again: so one thread loads and asks the model, which uses every core.
        self._own_thread = ThreadPoolExecutor(1)
        self.model = self._own_thread.submit(load, self.folder).result()

    # MLflow knows no type hint for "array or list of arrays", and warns of any other; with this
    # one it passes on what it was given.
    def predict(self, context, model_input: np.ndarray, params=None) -> pd.DataFrame:
        """A row for each image, with the columns `label` (1 is tumour) and `score`."""
        images = as_images(model_input)
        return self._own_thread.submit(self.model.predict, images).result()


def as_images(given: Iterable) -> list[np.ndarray | Image.Image]:
    """Each image as a model takes it; ValueError, with its number counted from 1, for what is none.

    Grey values over HTTP must be whole numbers from 0 to 255.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"The images must be a list, got a {type(given).__name__}: pass [image].")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes on every core
        return list(pool.map(_numbered, count(1), given))


def _numbered(number: int, image: np.ndarray | list | str) -> np.ndarray | Image.Image:
    try:
        return as_image(image)
    except ValueError as error:
        raise ValueError(f"Image {number}: {error}") from error


def as_image(image: np.ndarray | list | str) -> np.ndarray | Image.Image:
    """One image, decoded if it came over HTTP."""
    if isinstance(image, str):
        return _from_file(image)
    if isinstance(image, list):
        image = _from_lists(image)
    if np.ndim(image) not in (2, 3):
        raise ValueError(
            f"An image must be an array (height, width[, channels]), got shape {np.shape(image)}: "
            f"pass a single image as [image]."
        )
    return image


def _from_lists(rows: list) -> np.ndarray:
    try:
        pixels = np.asarray(rows)
    except ValueError as error:
        raise ValueError("the rows of pixels must be of one length") from error
    if pixels.size and (pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255):
        raise ValueError("pixels must be whole numbers from 0 to 255")
    return pixels.astype(np.uint8)


def _from_file(text: str) -> Image.Image:
    """The image in a file's bytes as base64, with or without `data:image/png;base64,` before it."""
    try:
        content = base64.b64decode(text.rpartition(",")[2], validate=True)
        image = Image.open(io.BytesIO(content))
        image.load()
    except binascii.Error as error:
        raise ValueError("the text is not the base64 of an image file") from error
    except UnidentifiedImageError as error:
        raise ValueError("the base64 text is of no image file (PNG, JPEG)") from error
    except Exception as error:  # decoders of damaged files raise what they happen to stumble over
        reason = str(error).replace("\n", " ")
        raise ValueError(f"the base64 text holds no image that can be read ({reason})") from error
    return image


set_model(ImageModel())
