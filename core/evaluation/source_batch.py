"""A batch of sources: translate them, translate the outputs back, and measure both."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from core.images.io import to_uint8
from core.model import Content, face_masks
from metrics.ssim import luma


class Outputs(NamedTuple):
    """One output for each of N sources."""

    images: np.ndarray  # uint8 (N, H, W, 3)
    embeddings: torch.Tensor  # (N, K), of LPIPS
    features: torch.Tensor  # (N, 2048), of Inception
    numbers: torch.Tensor  # (N, 3), see `core.evaluation.per_image`; NaN where there is none
    shown: list  # N sequences of images (H, W, 3): source, output and, if there is one, the output translated back


class SourceBatch:
    """N sources x_src (N, 3, H, W) with what all their outputs need. s_src: their own styles (N, style_dim)."""

    def __init__(self, nets, metric_networks, x_src, s_src, inference_batch):
        self.nets, self.inference_batch, self.s_src = nets, inference_batch, s_src
        self.inception, self.lpips = metric_networks
        self.content = Content.of(nets, x_src, inference_batch)
        self.images = to_uint8(x_src)
        self.luma = luma(self.images).to(x_src.device)  # (N, H, W)
        self.embeddings = torch.cat(inference_batch.run(self.lpips, x_src))  # (N, K)

    def translate(self, s_trg, prepare, and_back):
        """Translate into styles s_trg (N, style_dim) -> Outputs. prepare: see `translate_and_measure`. and_back:
        translate the outputs back, too."""
        networks = {"generator": self.nets.generator, "inception": self.inception, "lpips_network": self.lpips}
        measure = partial(translate_and_measure, prepare=prepare, **networks)
        parts = self.inference_batch.run(measure, self.content, s_trg, self.embeddings, self.luma)
        x_fake, images, embeddings, features, *kept = zip(*parts, strict=True)
        images, columns = np.concatenate(images), [torch.cat(column) for column in kept]
        numbers = torch.stack([*columns, torch.full_like(columns[0], torch.nan)], dim=1).cpu().double()
        shown = list(zip(self.images, images, strict=True))
        if and_back:
            measure = partial(translate_back, nets=self.nets, lpips_network=self.lpips)
            parts = self.inference_batch.run(measure, torch.cat(x_fake), self.s_src, self.embeddings)
            x_back, distances = map(torch.cat, zip(*parts, strict=True))
            numbers[:, 2] = distances.cpu().double()
            shown = [[*pair, image] for pair, image in zip(shown, to_uint8(x_back), strict=True)]
        return Outputs(images, torch.cat(embeddings), torch.cat(features), numbers, shown)


def translate_and_measure(content, s_trg, e_src, luma_src, *, generator, inception, lpips_network, prepare):
    """Translate N sources -> (x_fake, images, LPIPS embeddings (N, K), Inception features (N, 2048), LPIPS and SSIM
    between source and output (N,)).

    e_src: LPIPS embeddings of the sources. prepare(x_fake, luma_src) returns (images, inputs of Inception, SSIM). The
    dry run calls this function with tensors without data.
    """
    x_fake = generator.render(content, s_trg)
    images, x_inception, similarity = prepare(x_fake, luma_src)
    embeddings = lpips_network(x_fake.float())
    return x_fake, images, embeddings, inception(x_inception), _distance(embeddings, e_src), similarity


def translate_back(x_fake, s_src, e_src, *, nets, lpips_network):
    """Translate outputs (N, 3, H, W) back into the styles of their sources -> (x_back, LPIPS to the sources (N,))."""
    x_back = nets.generator(x_fake, s_src, face_masks(nets, x_fake))
    return x_back, _distance(lpips_network(x_back.float()), e_src)


def _distance(embeddings, embeddings2):
    return (embeddings - embeddings2).square().sum(1)
