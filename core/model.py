"""The four networks of StarGAN v2 (paper, section 2 and appendix) and their construction.

Shapes: N batch, C channels, H = W = img_size, D = num_domains. Images are RGB floats in [-1, 1].
"""

import copy
import math
from dataclasses import dataclass

import torch
from munch import Munch
from torch import nn
from torch.nn import functional as F

from core.layers import AdainResBlk, HighPass, ResBlk, activation

HIGH_PASS_SIZES = (32, 64, 128)  # resolutions at which the decoder adds high frequencies of the source


@dataclass(frozen=True)
class Content:
    """The encoded form of N images, which does not depend on a style. A slice selects images."""

    features: torch.Tensor  # (N, C', H', W'), output of the encoder
    skips: dict  # resolution -> (N, C, H, W) masked high frequencies; empty without masks
    masks: tuple | None = None  # the masks of `skips`, two tensors (N, 1, h, w)

    def __len__(self):
        return len(self.features)

    def __getitem__(self, images):
        return self._each(lambda tensor: tensor[images])

    def detach(self):
        """Return the same content without a graph."""
        return self._each(torch.Tensor.detach)

    @staticmethod
    def of(nets, x, micro_batch):
        """Return the content of images x (N, 3, H, W), with masks if nets have `fan`. micro_batch: a MicroBatch."""
        return Content.join(micro_batch.run(lambda part: nets.generator.content(part, face_masks(nets, part)), x))

    @staticmethod
    def join(contents):
        """Concatenate the contents, in their order."""
        features = torch.cat([content.features for content in contents])
        skips = {size: torch.cat([content.skips[size] for content in contents]) for size in contents[0].skips}
        masks = contents[0].masks and tuple(map(torch.cat, zip(*(content.masks for content in contents), strict=True)))
        return Content(features, skips, masks)

    def _each(self, change):
        skips = {size: change(skip) for size, skip in self.skips.items()}
        return Content(change(self.features), skips, None if self.masks is None else tuple(map(change, self.masks)))


class Generator(nn.Module):
    """Translate images into a style: G(x, s) = render(content(x), s). One content works for several styles."""

    def __init__(self, img_size=256, style_dim=64, max_conv_dim=512, w_hpf=1, channel_base=2**14):
        super().__init__()
        dim = channel_base // img_size
        self.from_rgb = nn.Conv2d(3, dim, 3, padding=1)
        self.encode, self.decode = nn.ModuleList(), nn.ModuleList()
        self.to_rgb = nn.Sequential(nn.InstanceNorm2d(dim, affine=True), activation(), nn.Conv2d(dim, 3, 1))
        if w_hpf > 0:
            self.hpf = HighPass(w_hpf)
        downsamplings = int(math.log2(img_size)) - 4 + (1 if w_hpf > 0 else 0)
        for _ in range(downsamplings):
            dim_out = min(dim * 2, max_conv_dim)
            self.encode.append(ResBlk(dim, dim_out, normalize=True, downsample=True))
            self.decode.insert(0, AdainResBlk(dim_out, dim, style_dim, w_hpf, upsample=True))
            dim = dim_out
        for _ in range(2):  # bottleneck
            self.encode.append(ResBlk(dim, dim, normalize=True))
            self.decode.insert(0, AdainResBlk(dim, dim, style_dim, w_hpf))

    def forward(self, x, s, masks=None):
        """x (N, 3, H, W) in [-1, 1], s (N, style_dim), masks: see `content` -> (N, 3, H, W), unclamped."""
        return self.render(self.content(x, masks), s)

    def content(self, x, masks=None):
        """Encode images, independently of the style: x (N, 3, H, W) in [-1, 1] -> Content.

        masks: None, or with w_hpf > 0 two tensors (N, 1, h, w) in [0, 1]: for 32 px, and for 64 and 128 px.
        """
        skips = {}
        x = self.from_rgb(x)  # (N, dim, H, W)
        for block in self.encode:
            size = x.shape[2]
            if masks is not None and size in HIGH_PASS_SIZES:
                mask = masks[0] if size == 32 else masks[1]
                mask = F.interpolate(mask, size=(size, size), mode="bilinear", align_corners=False)
                skips[size] = self.hpf(mask * x)
            x = block(x)
        return Content(x, skips, None if masks is None else tuple(masks))

    def render(self, content, s):
        """Decode images with a style: Content of N images, s (N, style_dim) -> (N, 3, H, W), unclamped. If content or s
        has N = 1, it is used for all."""
        x = content.features
        for block in self.decode:
            x = block(x, s)
            if x.shape[2] in content.skips:
                x = x + content.skips[x.shape[2]]
        return self.to_rgb(x)  # (N, 3, H, W)


class MappingNetwork(nn.Module):
    """Map a random code to a style code of a domain: z (N, latent_dim), y (N,) -> (N, style_dim)."""

    def __init__(self, latent_dim=16, style_dim=64, num_domains=2, hidden_dim=512):
        super().__init__()
        self.shared = nn.Sequential(*_mlp(latent_dim, hidden_dim, layers=4))
        self.unshared = nn.ModuleList(
            nn.Sequential(*_mlp(hidden_dim, hidden_dim, layers=3), nn.Linear(hidden_dim, style_dim))
            for _ in range(num_domains)
        )

    def forward(self, z, y):
        """z (N, latent_dim), standard normal, y (N,) integers in [0, D) -> (N, style_dim)."""
        h = self.shared(z)  # (N, hidden_dim)
        return _select(torch.stack([head(h) for head in self.unshared], dim=1), y)


class StyleEncoder(nn.Module):
    """Extract the style code of an image in its domain: x (N, 3, H, W), y (N,) -> (N, style_dim)."""

    def __init__(self, img_size=256, style_dim=64, num_domains=2, max_conv_dim=512, channel_base=2**14):
        super().__init__()
        layers, dim = _trunk(img_size, max_conv_dim, channel_base)
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList(nn.Linear(dim, style_dim) for _ in range(num_domains))

    def forward(self, x, y):
        """x (N, 3, H, W) in [-1, 1], y (N,) integers in [0, D) -> (N, style_dim)."""
        h = self.shared(x).flatten(1)  # (N, dim)
        return _select(torch.stack([head(h) for head in self.unshared], dim=1), y)


class Discriminator(nn.Module):
    """Classify images as real or fake, with one logit per domain: x (N, 3, H, W), y (N,) -> logits (N,)."""

    def __init__(self, img_size=256, num_domains=2, max_conv_dim=512, channel_base=2**14):
        super().__init__()
        layers, dim = _trunk(img_size, max_conv_dim, channel_base)
        self.main = nn.Sequential(*layers, nn.Conv2d(dim, num_domains, 1))

    def forward(self, x, y):
        """x (N, 3, H, W) in [-1, 1], y (N,) integers in [0, D) -> logits (N,), positive for real images."""
        return _select(self.main(x).flatten(1), y)  # (N, D) -> (N,)


def _mlp(dim_in, dim_out, layers):
    """Return a flat list of `layers` pairs of Linear and ReLU."""
    return [part for i in range(layers) for part in (nn.Linear(dim_out if i else dim_in, dim_out), nn.ReLU())]


def _trunk(img_size, max_conv_dim, channel_base):
    """Return the layers that E and D have in common, (N, 3, H, W) -> (N, dim, 1, 1), and dim."""
    dim = channel_base // img_size
    layers = [nn.Conv2d(3, dim, 3, padding=1)]
    for _ in range(int(math.log2(img_size)) - 2):
        dim_out = min(dim * 2, max_conv_dim)
        layers.append(ResBlk(dim, dim_out, downsample=True))
        dim = dim_out
    return [*layers, activation(), nn.Conv2d(dim, dim, 4), activation()], dim


def _select(outputs, y):
    """Select the output of domain y for each sample: outputs (N, D, ...), y (N,) -> (N, ...)."""
    # All heads are computed. Those not selected get a zero gradient instead of None, so weight decay applies to all.
    return outputs[torch.arange(y.shape[0], device=y.device), y]


def face_masks(nets, x):
    """Return the masks of face images (N, 3, H, W) for `Generator.content`, None if nets have no `fan`."""
    if "fan" not in nets:
        return None
    with torch.autocast(x.device.type, enabled=False):  # Rounding to bf16 would move the edges of the masks.
        return nets["fan"].get_heatmap(x.detach().to(nets["fan"].l0.weight.dtype))


def initialize(network):
    """Initialise convolutions and linear layers by He's method (fan in, ReLU gain), and biases with zero."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_model(args):
    """Return (nets, nets_ema), each a Munch of name -> module on the CPU.

    nets: G, F, E and D, initialised from args.seed. nets_ema: moving averages of G, F and E, at first equal to them.
    With w_hpf > 0 they share the face network `fan`, whose weights the caller must load.
    """
    size, base = args.img_size, args.channel_base
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        nets = Munch(
            generator=Generator(size, args.style_dim, args.max_conv_dim, args.w_hpf, base),
            mapping_network=MappingNetwork(args.latent_dim, args.style_dim, args.num_domains, args.hidden_dim),
            style_encoder=StyleEncoder(size, args.style_dim, args.num_domains, args.max_conv_dim, base),
            discriminator=Discriminator(size, args.num_domains, args.max_conv_dim, base),
        )
        for network in nets.values():
            initialize(network)
    nets_ema = Munch({name: copy.deepcopy(net) for name, net in nets.items() if name != "discriminator"})
    for network in nets_ema.values():
        network.requires_grad_(False)
    if args.w_hpf > 0:
        from core.wing import FAN  # Only faces need this module.

        nets.fan = nets_ema.fan = FAN()
    return nets, nets_ema
