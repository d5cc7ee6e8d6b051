"""The generators of both classes in one: what a registered generator is made of.

Owns its folder, and that equal requests are equal images. Knows nothing of where it is registered.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training import checkpoint
from training.data.folder import CLASS_FOLDERS
from training.generator import BATCH, GeneratorSpec, as_images
from training.predictor import PREDICTOR, versions

CLASSES = {label: name for name, label in CLASS_FOLDERS.items()}  # label -> "no" or "yes"


@dataclass(frozen=True)
class GeneratorBundle:
    """A network a class."""

    preprocess: str  # of the images that it has learned: "head" or "paper"
    spec: GeneratorSpec
    networks: dict[int, nn.Module]  # label -> network
    device: torch.device

    def generate(self, labels: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """A slice a row, uint8 (n, 128, 128): of its class (0 no tumour, 1 tumour), by its seed."""
        unknown = sorted(set(np.asarray(labels).tolist()) - set(self.networks))
        if unknown:
            raise ValueError(f"label must be one of {sorted(self.networks)}, got {unknown[0]}.")
        made = np.empty((len(labels), 128, 128), np.uint8)
        for label, network in self.networks.items():
            rows = np.flatnonzero(np.asarray(labels) == label)
            for part in np.split(rows, range(BATCH, len(rows), BATCH)):
                made[part] = self._made(network, np.asarray(seeds)[part])
        return made

    def _made(self, network: nn.Module, seeds: np.ndarray) -> np.ndarray:
        if not len(seeds):
            return np.empty((0, 128, 128), np.uint8)
        noise = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        z = torch.cat([network.sample_latent(1, generator) for generator in noise])
        return as_images(network, z, self.device)

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        self.save_own(folder)
        for label, network in self.networks.items():
            checkpoint.save_weights(network, folder / weights_file(label))

    def save_own(self, folder: Path) -> None:
        """The same without the weights, where these are kept elsewhere."""
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "preprocess": self.preprocess,
            "generator": asdict(self.spec.complete()),
            "labels": sorted(self.networks),
            "versions": versions(),
        }
        (folder / PREDICTOR).write_text(json.dumps(description, indent=1))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "GeneratorBundle":
        """Read a saved bundle."""
        folder = Path(folder)
        description = json.loads((folder / PREDICTOR).read_text())
        spec = GeneratorSpec(**description["generator"])
        networks = {}
        for label in description["labels"]:
            network = spec.build()
            checkpoint.load_weights(network, folder / weights_file(label))
            networks[label] = network.to(device).eval()
        return cls(description["preprocess"], spec, networks, torch.device(device))


def weights_file(label: int) -> str:
    """The name of the file with the weights of this class."""
    return f"{CLASSES[label]}.safetensors"


def load(folder: Path) -> GeneratorBundle:
    """The entry point that a registered generator names."""
    return GeneratorBundle.load(folder)
