"""Synthetic lesions: a small U-Net that outlines lesions painted into healthy slices.

It never sees a tumour: each training image is a healthy slice, distorted, and as a rule with a
blob of another intensity, texture or image painted in (FPI, Tan et al. 2020; DRAEM, Zavrtanik
et al. 2021; NSA, Schlueter et al. 2022). The probability of a lesion is the error map.

What is painted follows those papers and a look at some validation images; it was laid down before
any tumour was scored, and not fitted to scores since.

Owns the painting, the network and its loss. Knows nothing of files, epochs or precision.
"""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ExponentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

EVAL_SEED = 0  # the lesions painted into validation images are the same in every epoch
HEAD = 0.06  # our choice: a gray value above it belongs to the head
VISIBLE = 0.04  # our choice: a lesion that changes its pixels by less on average is not counted
DICE_WEIGHT = 0.3  # our choice
EMA_DECAY = 0.98  # our choice: an average over about the last 50 steps
GRID = 32  # cells a side of the grid on which places for lesions are drawn

# How long to train: our choice, on validation images.
SCHEDULE = {"n_epochs": 12, "batch_size": 32, "patience": 12}
# How an error map is made: seen under all flips, and with its size kept.
MAPPING = {"flips": "all", "scaling": "healthy"}


def build(
    *,
    lr: float = 2e-3,
    lr_half_life: int = 200,
    width: int = 16,
    image_size: int = 64,
    lesion_rate: float = 0.6,
    max_radius: float = 0.2,
) -> "LesionSegmenter":
    """A LesionSegmenter with its optimizer.

    `lr` halves every `lr_half_life` steps. `max_radius` is the largest lesion's, as a share of
    the image's side; the smallest has 0.04. All values are our choice.
    """
    rules = {
        f"lr must be above 0, got {lr}.": lr > 0,
        f"lr_half_life must be at least 1, got {lr_half_life}.": lr_half_life >= 1,
        f"width must be at least 1, got {width}.": width >= 1,
        f"image_size must be a multiple of 32 in [32, 128], got {image_size}.": (
            32 <= image_size <= 128 and image_size % 32 == 0
        ),
        f"lesion_rate must be in (0, 1], got {lesion_rate}.": 0 < lesion_rate <= 1,
        f"max_radius must be in [0.05, 0.5], got {max_radius}.": 0.05 <= max_radius <= 0.5,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return LesionSegmenter(
        lr=lr,
        lr_half_life=lr_half_life,
        width=width,
        image_size=image_size,
        lesion_rate=lesion_rate,
        max_radius=max_radius,
    )


class LesionSegmenter(nn.Module):
    """A U-Net with AdamW, and the running average of its weights, which is what answers.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`, s;
    lesions are outlined at s/2. The average steadies the answers: at one and the same epoch
    AUROC was 0.91 with it and 0.85 without on validation images.
    """

    def __init__(self, *, lr, lr_half_life, width, image_size, lesion_rate, max_radius):
        super().__init__()
        self.image_size, self.lesion_rate, self.max_radius = image_size, lesion_rate, max_radius
        self.network = UNet(width)
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=lr, weight_decay=1e-4)
        self.scheduler = ExponentialLR(self.optimizer, 0.5 ** (1 / lr_half_life))

    def train_step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer on distorted images; the losses before it, a batch's mean."""
        with torch.autocast(x.device.type, enabled=False):
            painted, lesions = self._paint(distort(self._resize(x)))
        losses = _losses(self.network(painted), lesions)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        self.scheduler.step()
        self.average.update_parameters(self.network)
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def eval_step(self, x: Tensor) -> dict[str, Tensor]:
        """The same losses with lesions that depend on `x` alone: they repeat exactly."""
        generator = Generator(x.device).manual_seed(EVAL_SEED)
        with torch.autocast(x.device.type, enabled=False):
            painted, lesions = self._paint(self._resize(x), generator)
        return _losses(self.average(painted), lesions)

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """The probability of a lesion, enlarged (bilinear) to the size of x."""
        probability = torch.sigmoid(self.average(self._resize(x)).float())
        return F.interpolate(probability, size=x.shape[-2:], mode="bilinear", align_corners=False)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What the encoder's last three depths see, (b, 10 * width, 8, 8)."""
        layers = self.average.module.encode(self._resize(x))[1:]
        return torch.cat([_to_side(layer.float(), 8) for layer in layers], 1)

    def _paint(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        return paint_lesions(
            x, rate=self.lesion_rate, max_radius=self.max_radius, generator=generator
        )

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.image_size:
            return x
        return F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)


class UNet(nn.Module):
    """Images (b, 1, s, s) -> logits (b, 1, s/2, s/2); it sees an image beside its mirror image."""

    def __init__(self, width: int):
        super().__init__()
        w = width
        self.stem = _convolution(2, w, stride=2, kernel_size=4)  # (b, w, s/2, s/2)
        self.down = nn.ModuleList(
            [
                nn.Sequential(_convolution(w, 2 * w, stride=2), _convolution(2 * w, 2 * w)),
                nn.Sequential(_convolution(2 * w, 4 * w, stride=2), _convolution(4 * w, 4 * w)),
                nn.Sequential(
                    _convolution(4 * w, 4 * w, stride=2),  # (b, 4w, s/16, s/16)
                    _convolution(4 * w, 4 * w),
                    _convolution(4 * w, 4 * w),
                ),
            ]
        )
        self.up = nn.ModuleList(
            [_convolution(8 * w, 4 * w), _convolution(6 * w, 2 * w), _convolution(3 * w, w)]
        )
        self.to_logit = nn.Conv2d(w, 1, 1)  # (b, 1, s/2, s/2)

    def forward(self, x: Tensor) -> Tensor:
        *skipped, h = self.encode(x)
        for block, skip in zip(self.up, reversed(skipped), strict=True):
            h = block(torch.cat([skip, F.interpolate(h, scale_factor=2)], 1))
        return self.to_logit(h)

    def encode(self, x: Tensor) -> list[Tensor]:
        """What is seen at the four depths, of sides s/2, s/4, s/8 and s/16."""
        pair = torch.cat([x, x.flip(-1)], 1).contiguous(memory_format=torch.channels_last)
        layers = [self.stem(pair)]
        for block in self.down:
            layers.append(block(layers[-1]))
        return layers


def distort(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Other slices of the same kind: flipped, turned, shifted, sharpened, of another contrast."""
    b, draw = len(x), _Draw(x, generator)
    flip_x, flip_y = (draw.happens(0.5).flatten() * 2 - 1 for _ in range(2))
    angle = 0.15 * draw.normal(b)
    scale, aspect = (1 + 0.05 * draw.normal(b) for _ in range(2))
    shift = 0.03 * draw.normal(2, b)
    rows = [
        [scale * aspect * flip_x * angle.cos(), -scale * flip_y * angle.sin(), shift[0]],
        [scale * flip_x * angle.sin(), scale * flip_y * angle.cos(), shift[1]],
    ]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (b, 2, 3)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False).clamp(0, 1)
    blurred = F.avg_pool2d(x, 3, stride=1, padding=1)
    x = (x + draw.uniform(-0.8, 1.2) * (x - blurred)).clamp(1e-4, 1)
    return (x ** draw.uniform(-0.5, 0.5).exp() * draw.uniform(0.8, 1.15)).clamp(0, 1)


def paint_lesions(
    x: Tensor, *, rate: float, max_radius: float, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Images with a lesion in `rate` of them, and its outline: both (b, 1, s, s) in [0, 1].

    A lesion is a blob with a soft edge inside the head: of one intensity with texture, a piece
    of another image, or the tissue itself made brighter or darker; some have a rim, a core, or
    a halo (oedema, which is not part of the outline).
    """
    draw = _Draw(x, generator)
    depth, radius, head = _blob(x, max_radius, draw)
    softness = draw.log_uniform(0.3, 2)  # pixels
    blob = torch.sigmoid(depth * radius / softness) * head
    fill = _with_rim_and_core(_fill(x, draw), depth, draw)
    reach = depth + draw.uniform(0.2, 0.8) + 0.3 * draw.noise(6)
    halo = torch.sigmoid(reach * radius / (2 * softness)) * head
    halo = halo * draw.happens(0.4) * draw.uniform(0.3, 0.8)
    painted = x + halo * (0.5 * draw.uniform(0, 0.8) - 0.5 * x)
    painted = painted + blob * draw.uniform(0.6, 1) * (fill - painted)
    change = ((painted - x).abs() * blob).sum(dim=(2, 3), keepdim=True)
    area = blob.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    present = draw.happens(rate) * (change / area > VISIBLE)
    grain = 0.04 * draw.uniform(0, 1) ** 2 * draw.normal(*x.shape)
    painted = (x + present * (painted - x) + grain).clamp(0, 1)
    return painted, blob * present


class _Draw:
    """Random values for a batch of images: one an image (b, 1, 1, 1), or fields (b, 1, s, s)."""

    def __init__(self, x: Tensor, generator: Generator | None):
        self.b, self.side = len(x), x.shape[-1]
        self.source = {"generator": generator, "device": x.device}

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.b, 1, 1, 1, **self.source)

    def log_uniform(self, low: float, high: float) -> Tensor:
        return self.uniform(math.log(low), math.log(high)).exp()

    def happens(self, probability: float) -> Tensor:
        return (self.uniform(0, 1) < probability).float()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, **self.source)

    def noise(self, cells: int) -> Tensor:
        """A smooth field; `cells` random values a side."""
        return F.interpolate(self.normal(self.b, 1, cells, cells), size=self.side, mode="bilinear")

    def texture(self) -> Tensor:
        """Noise of four finenesses, mixed in other shares for each image."""
        fields = torch.cat([self.noise(cells) for cells in (6, 12, 24, self.side)], 1)
        shares = torch.rand(self.b, 4, 1, 1, **self.source) ** 2
        shares = shares / shares.square().sum(1, keepdim=True).sqrt()
        return (shares * fields).sum(1, keepdim=True)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, **self.source)


def _blob(x: Tensor, max_radius: float, draw: _Draw) -> tuple[Tensor, Tensor, Tensor]:
    """How deep a pixel lies inside the blob (1 at its centre, 0 at its edge), its radius, the head.

    An ellipse bent by smooth noise, its centre drawn from inside the head.
    """
    side = x.shape[-1]
    low = F.avg_pool2d((F.avg_pool2d(x, side // GRID) > HEAD).float(), 5, stride=1, padding=2)
    inside = F.avg_pool2d((low > 0.5).float(), 5, stride=1, padding=2, count_include_pad=False)
    weights = (inside > 0.9).float().flatten(1) + 1e-6  # an image without a head: anywhere
    cell = torch.multinomial(weights, 1, generator=draw.source["generator"])[..., None, None]
    y0 = (cell // GRID + draw.uniform(0, 1)) * (side / GRID)
    x0 = (cell % GRID + draw.uniform(0, 1)) * (side / GRID)
    position = torch.arange(side, device=x.device) + 0.5
    dy, dx = position[:, None] - y0, position - x0
    angle, stretch = draw.uniform(0, math.pi), draw.uniform(-0.35, 0.35).exp()
    radius = side * draw.log_uniform(0.04, max_radius)
    along = (dx * angle.cos() + dy * angle.sin()) * stretch
    across = (dy * angle.cos() - dx * angle.sin()) / stretch
    depth = 1 - torch.hypot(along, across) / radius + draw.uniform(0.05, 0.35) * draw.noise(8)
    head = F.interpolate(low, size=side, mode="bilinear")
    return depth, radius, ((head - 0.5) * 8).clamp(0, 1)


def _fill(x: Tensor, draw: _Draw) -> Tensor:
    """What a lesion is painted with: one intensity, another image or the tissue changed."""
    texture = draw.texture()
    flat = draw.uniform(0, 1.1) + 0.35 * draw.uniform(0, 1) ** 2 * texture
    other = x.roll(1, 0)
    other = torch.where(draw.happens(0.5) > 0, other.flip(-1), other)
    rows, columns = (draw.integers(2 * x.shape[-1] // 5, 2) - x.shape[-1] // 5).tolist()
    other = other.roll((rows, columns), (-2, -1))
    other = other * draw.uniform(0.5, 1.5) + draw.uniform(-0.2, 0.3)
    tissue = x * draw.uniform(0.1, 1.3) + draw.uniform(-0.4, 0.6)
    tissue = tissue + 0.25 * draw.uniform(0, 1) ** 2 * texture
    kind = draw.integers(3, len(x), 1, 1, 1)
    return torch.where(kind == 0, flat, torch.where(kind == 1, other, tissue))


def _with_rim_and_core(fill: Tensor, depth: Tensor, draw: _Draw) -> Tensor:
    width = draw.uniform(0.1, 0.4)
    rim = torch.exp(-(((depth - width) / (0.6 * width)) ** 2)) * draw.happens(0.3)
    fill = fill + rim * (draw.uniform(-0.3, 1) - 0.5 * fill)
    core = torch.sigmoid((depth - 0.45) * 10) * draw.happens(0.25)
    return (fill + core * (draw.uniform(0, 1) - fill)).clamp(0, 1)


def _losses(logits: Tensor, lesions: Tensor) -> dict[str, Tensor]:
    """Cross-entropy a pixel, and 1 - Dice an image; an empty outline left empty has Dice 1."""
    target, logits = F.avg_pool2d(lesions, 2), logits.float()
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    p = torch.sigmoid(logits)
    overlap, total = ((v.sum(dim=(1, 2, 3)) + 5) for v in (2 * p * target, p + target))
    dice = (1 - overlap / total).mean()  # 5 pixels soften it
    return {"loss": entropy + DICE_WEIGHT * dice, "entropy": entropy, "dice": dice}


def _convolution(n_in: int, n_out: int, *, stride: int = 1, kernel_size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


def _to_side(layer: Tensor, side: int) -> Tensor:
    if layer.shape[-1] > side:
        return F.adaptive_avg_pool2d(layer, side)
    return F.interpolate(layer, size=side)
