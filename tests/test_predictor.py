"""A saved predictor answers as the pipeline that it came from, for images as they come."""

import json

import cv2
import numpy as np
import pytest
import torch

from models.heads import HEADS
from training.cache import Cache
from training.data import load as load_dataset
from training.data import phantom as phantom_module
from training.data import split
from training.detector import DetectorSpec, fit_detector
from training.features import FeatureStore
from training.predictor import Predictor, load

CPU = torch.device("cpu")
TINY = {"image_size": 32, "n_epochs": 12, "batch_size": 4, "latent_dim": 8, "lr": 3e-3}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A detector fitted on a small folder of slices, and the slices as they come."""
    root = tmp_path_factory.mktemp("predictor")
    phantom_module.write(root / "slices", n_images=80, n_groups=48)
    dataset = load_dataset(str(root / "slices"), root=root, say=lambda _: None)
    splits = split(dataset.labels, dataset.groups)
    store = FeatureStore(dataset, Cache(root / "cache"), CPU, say=lambda _: None)
    detector = fit_detector(DetectorSpec("brain_cvae", TINY), splits, store, precision="fp32")
    files = [root / "slices" / file for file in dataset.manifest.file]
    return detector, [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]


def predictor(fitted, head_name: str) -> Predictor:
    detector, images = fitted
    maps = detector.error_maps(np.arange(len(images)))
    head = HEADS[head_name]().fit(maps.values)
    return Predictor("head", detector.spec, detector.mapper, head, CPU)


@pytest.mark.parametrize("head_name", HEADS)
def test_a_loaded_predictor_answers_as_the_pipeline_does(fitted, tmp_path, head_name):
    detector, images = fitted
    original = predictor(fitted, head_name)
    original.save(tmp_path)
    answers = load(tmp_path).predict(images)
    maps = detector.error_maps(np.arange(len(images))).values
    assert answers.label.tolist() == original.head.predict(maps).tolist()
    np.testing.assert_allclose(answers.score, original.head.decision_function(maps), atol=1e-4)
    assert ((answers.score >= 0) == (answers.label == 1)).all()


def test_a_saved_predictor_is_text_and_arrays(fitted, tmp_path):
    predictor(fitted, "global_kmeans").save(tmp_path / "new" / "folder")
    files = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert files == {"predictor.json", "weights.safetensors", "head.safetensors"}
    description = json.loads((tmp_path / "new" / "folder" / "predictor.json").read_text())
    assert description["preprocess"] == "head"
    assert description["detector"]["hyperparameters"]["image_size"] == 32
    assert description["head"]["name"] == "global_kmeans"
    assert description["versions"]["torch"] in torch.__version__


def test_gray_and_color_images_of_any_size_are_answered(fitted):
    _, images = fitted
    model = predictor(fitted, "giaem")
    color = [cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) for image in images[:3]]
    assert model.predict(color).equals(model.predict(images[:3]))
    stacked = np.stack([cv2.resize(image, (200, 160)) for image in images[:3]])
    assert len(model.predict(stacked)) == 3
    assert list(model.predict([]).columns) == ["label", "score"]


def test_a_single_image_is_refused_with_the_cure(fitted):
    with pytest.raises(ValueError, match="Put a single image in a list"):
        predictor(fitted, "giaem").predict(fitted[1][0])
