"""Training beside the PyTorch script that a user would otherwise write.

Owns that script (ImageFolder, DataLoader, float32, transforms of one image at a time, Adam) for the
detectors, the classifier and the generators, and how both sides are timed: each on the same images
and the same network, in a process of its own on one core, by turns; before, that both measure the
same loss of the same weights. Knows nothing of how results are shown.

    for pair in pairs(dataset, splits, folder, effort=QUICK): print(pair)
"""

import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from models import backbones, brain_cnn, brain_cvae, gan, patch_features, vae
from models.doubling import DoublingConv2d
from models.patch_features import PatchFeatures
from studies.bench.ratio import processor_seconds
from training import loop
from training.allocator import SETTINGS, keep_freed_memory
from training.data import Dataset, Splits
from training.device import resolve_precision
from training.error_maps import by_batches

CPU = torch.device("cpu")
CLASSES = ("no", "yes")
N_WORKERS = 0  # of a DataLoader, its default; on one core 2 made the script slower still
EQUAL = 1.05  # a validation loss up to this multiple of the other's is as good
ERRORS = 2  # standard errors that a mean over seeds may be off by
THUMBNAIL = 16  # px, at which made images are held against real ones
N_MADE = 256


class Side(NamedTuple):
    """One training: what it took, and what it came to."""

    images_per_second: float  # of the processor's time: a busy machine hardly moves it
    val_loss: float


class Pair(NamedTuple):
    """A network trained both ways: medians over the rounds."""

    network: str
    ours: Side
    peer: Side
    ratio: float  # of images a second, the median of the rounds' own
    load: float  # of the machine meanwhile, processes that wanted a core
    losses: tuple[float, ...]  # our validation loss over the script's, round by round
    n_seeds: int  # that it takes to judge them

    @property
    def is_judged(self) -> bool:
        """Whether there were rounds enough to tell a loss of ours from luck."""
        return len(self.losses) >= self.n_seeds

    @property
    def equally_good(self) -> bool:
        """Whether our validation loss is no worse; where it takes many seeds, worse on average by
        more than their spread explains."""
        if self.n_seeds == 1:
            return self.ours.val_loss <= EQUAL * self.peer.val_loss
        return not self.is_judged or low_end(self.losses) <= EQUAL


class Size(NamedTuple):
    """Of one training."""

    n_images: int
    n_epochs: int


@dataclass(frozen=True)
class Effort:
    """How much of it: rounds, and the size of each network's training."""

    rounds: int  # or as many more as it takes to judge a network, where `all_seeds`
    sizes: dict[str, Size]
    all_seeds: bool


FULL = Effort(
    rounds=3,
    sizes={
        "patch_features": Size(512, 1),
        "brain_cvae": Size(512, 4),
        "brain_cnn small": Size(512, 12),
        "brain_cnn pretrained": Size(512, 8),
        "brain_cnn paper": Size(256, 3),
        "vae": Size(512, 6),
        "gan": Size(256, 10),
    },
    all_seeds=True,
)
QUICK = Effort(
    rounds=1,
    sizes={
        "patch_features": Size(96, 1),
        "brain_cvae": Size(192, 2),
        "brain_cnn small": Size(512, 8),
        "brain_cnn pretrained": Size(256, 5),
        "vae": Size(256, 2),
        "gan": Size(256, 2),
    },
    all_seeds=False,
)


def pairs(
    dataset: Dataset, splits: Splits, folder: Path, *, effort: Effort = FULL
) -> Iterator[Pair]:
    """Each network trained both ways by turns; images and the probe's answer go below `folder`."""
    resolve_precision(CPU, root=folder)  # probed now, and not while a training is timed
    with trainings() as train:
        for name, size in effort.sizes.items():
            if NETWORKS[name].needs_weights and not backbones.is_installed(backbones.LITE):
                continue
            images = folder / name.replace(" ", "_")
            labelled = NETWORKS[name].labelled
            write_images(dataset, splits, images, n=size.n_images, labelled=labelled)
            n_seeds = NETWORKS[name].n_seeds if effort.all_seeds else 1
            rounds = [
                {side: train(side, name, images, size, seed) for side in ("peer", "ours")}
                for seed in range(max(effort.rounds, n_seeds))
            ]
            yield _pair(name, rounds)


def _pair(name: str, rounds: list[dict[str, Side]]) -> Pair:
    ratios = [r["ours"].images_per_second / r["peer"].images_per_second for r in rounds]
    ours, peer = (
        Side(*map(statistics.median, zip(*(r[side] for r in rounds), strict=True)))
        for side in ("ours", "peer")
    )
    losses = tuple(r["ours"].val_loss / r["peer"].val_loss for r in rounds)
    n_seeds = NETWORKS[name].n_seeds
    return Pair(name, ours, peer, statistics.median(ratios), os.getloadavg()[0], losses, n_seeds)


def low_end(losses: Sequence[float]) -> float:
    """The lowest ratio of losses that these, of one seed each, agree with: their geometric mean
    less its standard errors."""
    logs = np.log(losses)
    return float(np.exp(logs.mean() - ERRORS * logs.std(ddof=1) / np.sqrt(len(logs))))


def write_images(dataset: Dataset, splits: Splits, folder: Path, *, n: int, labelled: bool) -> None:
    """The same images for both sides: PNG files by class, and arrays.

    About n for training and half of that for validation, of both classes or healthy ones alone.
    """
    rng = np.random.default_rng(0)
    for part, indices, count in (("train", splits.train, n), ("val", splits.val, n // 2)):
        if not labelled:
            indices = indices[dataset.labels[indices] == 0]
        chosen = rng.permutation(indices)[:count]
        arrays = {"images": dataset.images[chosen], "labels": dataset.labels[chosen]}
        for k, (image, label) in enumerate(zip(*arrays.values(), strict=True)):
            path = folder / part / CLASSES[label] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
        for name, array in arrays.items():
            np.save(folder / f"{part}_{name}.npy", array)


@contextmanager
def trainings() -> Iterator[Callable[..., Side]]:
    """`train(side, name, folder, size, seed)`: one training in a fresh process on one core.

    They are forked from one that has only imported what they need, and whose environment says
    nothing of threads or memory.
    """
    ours = {*SETTINGS, "OMP_NUM_THREADS", "MKL_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    with on_one_core():
        process = subprocess.Popen(
            [sys.executable, "-m", "studies.bench.training"],
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def train(side: str, name: str, folder: Path, size: Size, seed: int) -> Side:
        print(json.dumps([side, name, str(folder), size.n_epochs, seed]), file=process.stdin)
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process of the {side} training of {name} has ended.")
        if isinstance(outcome := json.loads(answer), str):
            raise RuntimeError(f"The {side} training of {name} failed: {outcome}")
        return Side(*outcome)

    with process:  # waits for its end, which that of its input is
        yield train


@contextmanager
def on_one_core() -> Iterator[None]:
    """Processes that are started within have the last of our cores for their own."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def train_ours(network: "Network", folder: Path, n_epochs: int, seed: int) -> Side:
    """As a study trains it, with what the command line sets up before."""
    keep_freed_memory()
    with loop.seeded(seed, CPU):
        module = network.build()
    part = {p: {n: np.load(folder / f"{p}_{n}.npy") for n in KEPT} for p in PARTS}
    labels = {f"{p}_labels": part[p]["labels"] for p in PARTS} if network.labelled else {}
    images = {p: part[p]["images"] for p in PARTS}
    countdown = itertools.count(n_epochs, -1)
    started = processor_seconds()
    if isinstance(module, PatchFeatures):
        remember(module, by_batches(module.extract, images["train"], CPU))
        mean_error(module, images["val"])
    else:
        loop.fit(
            module,
            images["train"],
            images["val"],
            n_epochs=n_epochs,
            batch_size=network.batch_size,
            patience=n_epochs,
            seed=seed,
            device=CPU,
            precision=resolve_precision(CPU, root=folder.parent),
            monitor=lambda _: {"epochs_left": float(next(countdown))},
            watched="epochs_left",  # the last epoch's weights, as the script has them
            **labels,
        )
    seconds = processor_seconds() - started
    return Side(n_epochs * len(images["train"]) / seconds, val_loss(module, folder))


def train_peer(network: "Network", folder: Path, n_epochs: int, seed: int) -> Side:
    """The obvious script."""
    torch.manual_seed(seed)
    module = network.build()
    script = network.script(module)
    check_loss(network, module, script, folder)
    as_tensor = [*network.resize, transforms.ToTensor()]
    train = ImageFolder(
        folder / "train",
        transforms.Compose([transforms.Grayscale(), *network.augmentation, *as_tensor]),
    )
    val = ImageFolder(folder / "val", transforms.Compose([transforms.Grayscale(), *as_tensor]))
    train_loader = DataLoader(train, network.batch_size, shuffle=True, num_workers=N_WORKERS)
    val_loader = DataLoader(val, network.batch_size, num_workers=N_WORKERS)
    started = processor_seconds()
    for _ in range(n_epochs):
        module.train()
        for x, y in train_loader:
            script.step(x, y)
        module.eval()
        total = 0.0
        with torch.no_grad():
            for x, y in val_loader:
                total += script.loss(x, y).item() * len(x)
    seconds = processor_seconds() - started
    return Side(n_epochs * len(train) / seconds, val_loss(module, folder))


@torch.no_grad()
def check_loss(network: "Network", module: nn.Module, script: "Script", folder: Path) -> None:
    """Refuse a script that measures another loss than ours of the same weights and images."""
    if isinstance(module, PatchFeatures):
        return  # there is none before something is remembered
    images, labels = (torch.from_numpy(np.load(folder / f"val_{n}.npy")[:8]) for n in KEPT)
    x, known = loop.as_input(images), [labels] if network.labelled else []
    module.eval()
    losses = module.eval_step(x, *known)
    small = F.interpolate(x, size=64, mode="bilinear", antialias=True) if network.resize else x
    ours, theirs = losses.get("loss", losses.get("loss_real")), script.loss(small, labels)
    if not torch.allclose(ours, theirs, rtol=1e-3):
        raise ValueError(
            f"The script's loss is {theirs.item():.4g} where ours is {ours.item():.4g}."
        )


class Script(NamedTuple):
    """What a script does with a batch: float (b, 1, s, s) in [0, 1] and labels (b,)."""

    step: Callable[[Tensor, Tensor], None]
    loss: Callable[[Tensor, Tensor], Tensor]


def with_adam(parameters, lr: float, loss: Callable[[Tensor, Tensor], Tensor]) -> Script:
    """One network, one loss."""
    optimizer = torch.optim.Adam(parameters, lr=lr)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss(x, y).backward()
        optimizer.step()

    return Script(step, loss)


def autoencoding(module: nn.Module, lr: float, distance: Callable[..., Tensor]) -> Script:
    """BrainCVAE and VAE: a distance to the image, summed over pixels, and the KL term."""
    decoder = layer_by_layer(module.decoder)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        h = module.encoder(x)
        mu, logvar = module.to_mu(h), module.to_logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu) if module.training else mu
        x_hat = torch.sigmoid(decoder(z))
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (distance(x_hat, x) + module.kl_weight * kl) / len(x)

    return with_adam(module.parameters(), lr, loss)


def classifying(module: brain_cnn.BrainCNN, lr: float, smoothing: float) -> Script:
    """BrainCNN: cross-entropy, layer by layer."""
    network, module.average = module.network, None

    def logits(x: Tensor) -> Tensor:
        if network.mirrored:
            x = torch.cat([x, x.flip(-1)], 1)
        for layer in network.convolutions:
            x = layer(x)
        return network.classify(network.embed(x))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits(x), y, label_smoothing=smoothing if module.training else 0.0)

    return with_adam([p for p in network.parameters() if p.requires_grad], lr, loss)


def playing(module: gan.GAN, lr: float) -> Script:
    """GAN: as in PyTorch's tutorial on DCGAN."""
    generator, discriminator = layer_by_layer(module.generator), module.discriminator
    module.average = None
    bce = F.binary_cross_entropy_with_logits
    of_generator = torch.optim.Adam(module.generator.parameters(), lr=lr, betas=(0.5, 0.999))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=lr, betas=(0.5, 0.999))

    def step(x: Tensor, y: Tensor) -> None:
        real, fake = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        discriminator.zero_grad()
        bce(discriminator(gan.augment(x)), real).backward()
        made = generator(torch.randn(len(x), module.latent_dim))
        bce(discriminator(gan.augment(made.detach())), fake).backward()
        of_discriminator.step()
        module.generator.zero_grad()
        bce(discriminator(gan.augment(made)), real).backward()
        of_generator.step()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return bce(discriminator(x), torch.ones(len(x), 1))

    return Script(step, loss)


def remembering(module: PatchFeatures) -> Script:
    """PatchFeatures: the backbone layer by layer, distances to all that is remembered by `cdist`.

    What is whitened and kept is ours on both sides.
    """
    backbone, kept = module.backbone, []
    mean, std = backbone.as_photograph.mean, backbone.as_photograph.std

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        maps = backbone.network.stem((x.repeat(1, 3, 1, 1) - mean) / std)
        for number, block in enumerate(backbone.network.blocks):
            maps = block(maps)
            if number == backbone.network.SHALLOW:
                shallow = maps
        return torch.cat(
            [F.adaptive_avg_pool2d(part, backbones.GRID) for part in (shallow, maps)], 1
        )

    def step(x: Tensor, y: Tensor) -> None:
        kept.append(features(x))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if kept:
            remember(module, torch.cat(kept))
            kept.clear()
        memory = module.memory.float().unflatten(1, (backbones.GRID, -1))  # (k, 8, 8, c)
        memory = torch.cat([memory.flip(axes) for axes in ((), (1,), (2,), (1, 2))]).flatten(1, 2)
        patches = module._projected(features(x))
        distances = torch.cdist(patches.movedim(1, 0), memory.movedim(1, 0)).amin(2)  # (64, b)
        return distances.square().mean()

    return Script(step, loss)


def layer_by_layer(network: nn.Sequential) -> nn.Sequential:
    """A network with the same parameters, each doubling before its convolution as it is written."""
    layers = []
    for layer in network:
        doubles = isinstance(layer, DoublingConv2d)
        layers += [nn.Upsample(scale_factor=2), _Written(layer)] if doubles else [layer]
    return nn.Sequential(*layers)


class _Written(nn.Module):
    """The convolution alone."""

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.convolution.weight, self.convolution.bias, padding=1)


def remember(module: PatchFeatures, features: Tensor) -> None:
    """Learn these healthy images' features, each image a group of its own."""
    module.learn(features, torch.arange(len(features)))


def mean_error(module: PatchFeatures, images: np.ndarray) -> float:
    """Of the maps of these images: squared distances to what is remembered."""
    return by_batches(lambda x: module.error_map(x).mean((1, 2, 3)), images, CPU).mean().item()


@torch.no_grad()
def val_loss(module: nn.Module, folder: Path) -> float:
    """Of the trained network on the validation images, in float32; the same for both sides."""
    module.eval()
    images, labels = (torch.from_numpy(np.load(folder / f"val_{name}.npy")) for name in KEPT)
    if isinstance(module, PatchFeatures):
        return mean_error(module, images.numpy())
    if isinstance(module, gan.GAN):
        noise = module.sample_latent(N_MADE, torch.Generator().manual_seed(0))
        made = module.generator(noise)  # the one that is trained: the script has no average of it
        return energy_distance(made, loop.as_input(images))
    known = [labels] if isinstance(module, brain_cnn.BrainCNN) else []
    batches = zip(*(tensor.split(64) for tensor in (images, *known)), strict=True)
    losses = [module.eval_step(loop.as_input(x), *y)["loss"].item() * len(x) for x, *y in batches]
    return sum(losses) / len(images)


def energy_distance(made: Tensor, real: Tensor) -> float:
    """How far made images lie from real ones, as thumbnails; 0 where they are of one kind.

    A GAN's losses say how the game stands, not how good its images are (Székely and Rizzo 2013).
    """
    made, real = (F.adaptive_avg_pool2d(x, THUMBNAIL).flatten(1) for x in (made, real))
    between = torch.cdist(made, real).mean()
    within = torch.pdist(made).mean() + torch.pdist(real).mean()
    return float(2 * between - within)


@dataclass(frozen=True)
class Network:
    """What is trained: our module, and the script's way with its layers."""

    build: Callable[[], nn.Module]
    script: Callable[[nn.Module], Script]
    labelled: bool
    batch_size: int
    resize: tuple[nn.Module, ...] = ()
    augmentation: tuple[nn.Module, ...] = ()
    needs_weights: bool = False  # of a network that has seen photographs
    n_seeds: int = 1  # that it takes to judge it by its validation loss


def squared(x_hat: Tensor, x: Tensor) -> Tensor:
    return F.mse_loss(x_hat, x, reduction="sum")


def pyramids(x_hat: Tensor, x: Tensor) -> Tensor:
    return vae.laplacian_distance(x_hat - x)


def own(module, values: dict[str, object]) -> dict[str, object]:
    """The network's among these hyperparameters; the rest is its schedule."""
    return {name: value for name, value in values.items() if name not in module.SCHEDULE}


PARTS, KEPT = ("train", "val"), ("images", "labels")
SMALLER = (transforms.Resize(64),)
FLIPS = (transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip())
DISTORTIONS = (  # what `brain_cnn.distort` does, as far as torchvision has it
    *FLIPS,
    transforms.RandomAffine(15, translate=(0.06, 0.06), scale=(0.89, 1.13)),
    transforms.ColorJitter(brightness=0.2, contrast=0.3),
)
NETWORKS = {
    "patch_features": Network(
        build=patch_features.build,
        script=remembering,
        labelled=False,
        batch_size=64,
        needs_weights=True,
    ),
    "brain_cvae": Network(
        build=brain_cvae.build,
        script=lambda module: autoencoding(module, 1e-3, squared),
        labelled=False,
        batch_size=64,
    ),
    "brain_cnn small": Network(
        build=brain_cnn.build,
        script=lambda module: classifying(module, 2e-3, 0.1),
        labelled=True,
        batch_size=64,
        resize=SMALLER,
        augmentation=DISTORTIONS,
    ),
    "brain_cnn pretrained": Network(
        build=lambda: brain_cnn.build(**brain_cnn.PRETRAINED),
        script=lambda module: classifying(module, 5e-4, 0.1),
        labelled=True,
        batch_size=64,
        resize=SMALLER,
        augmentation=DISTORTIONS,
        needs_weights=True,
    ),
    "brain_cnn paper": Network(
        build=lambda: brain_cnn.build(**brain_cnn.PAPER),
        script=lambda module: classifying(module, 1e-3, 0.0),
        labelled=True,
        batch_size=64,
    ),
    "vae": Network(
        build=lambda: vae.build(**own(vae, vae.GOOD)),
        script=lambda module: autoencoding(module, 2e-3, pyramids),
        labelled=False,
        batch_size=32,
        resize=SMALLER,
        augmentation=FLIPS,
    ),
    "gan": Network(
        build=lambda: gan.build(**own(gan, gan.GOOD)),
        script=lambda module: playing(module, 4e-4),
        labelled=False,
        batch_size=32,
        resize=SMALLER,
        n_seeds=12,  # images of two seeds differ more than those of both sides
    ),
}


def main() -> None:
    """Trainings as they are asked for, each answered by a line: its outcome, or why it failed."""
    fork = multiprocessing.get_context("fork")
    for line in sys.stdin:
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_answer, args=(sender, *json.loads(line)))
        process.start()
        sender.close()
        try:
            print(json.dumps(receiver.recv()), flush=True)
        except EOFError:
            print(json.dumps("it was killed"), flush=True)
        process.join()


def _answer(sender, side: str, name: str, folder: str, n_epochs: int, seed: int) -> None:
    train = {"ours": train_ours, "peer": train_peer}[side]
    try:
        sender.send(train(NETWORKS[name], Path(folder), n_epochs, seed)[:])
    except Exception:  # whatever it is, it is told, and the next training asked for
        sender.send(traceback.format_exc())


if __name__ == "__main__":
    main()
