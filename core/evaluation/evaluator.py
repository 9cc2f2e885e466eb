"""Evaluation: every domain translated into every other, scored by FID, KID and LPIPS (paper, section 3).

A task is an ordered pair of domains, src2trg. Every validation image of src is translated `outputs` times into
trg, in styles of random codes (latent) or of validation images of trg (reference). FID and KID compare all of
these pictures, in 8 bit, with all training images of trg; LPIPS is the mean distance between the pictures of
one source, that is, diversity. Pictures are scored as they are made.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

from core.data_loader import get_sample_loader, test_transform
from core.evaluation.features import MOST_KEPT, FeatureAccumulator, read_features, write_features
from core.images.folders import images_below, same_everywhere
from core.images.io import to_uint8, write_image
from core.model import Content
from core.sampling import translate
from core.system import console, distributed
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import make_folder, safe_name, sha256
from core.system.memory import chunks
from core.system.random import random_generator
from metrics import fid, lpips
from metrics.lpips import PairwiseMean
from metrics.stats import (
    frechet_distance,
    frechet_distance_of_few,
    kernel_distance,
    symmetric_root,
)  # fmt: skip
from metrics.weights import MissingWeights, weights_path

MODES = ("latent", "reference")
FEW = 512  # up to here FID is quicker from the features than from their covariances


class Scores(NamedTuple):
    """Of a task: distances from real images, lower is better, and diversity, higher is. NaN: too few images."""

    FID: float
    KID: float
    LPIPS: float


class Evaluation:
    """Scores networks on the images of folders with a sub-folder per domain.

    domains: names in label order. train_dir: real images for FID and KID; val_dir: sources and references;
    eval_dir: for the pictures, where save_images, and for statistics of the real ones, which are made once.
    outputs: pictures per source and task. batch_size: sources at a time; LPIPS is a mean over such batches.
    fit: calls work(size) with the number of images that may go through a network at once. leave_out: paths of
    images that do not count. Raises MissingWeights where the metrics' networks are neither there nor to be had,
    UserError where a sub-folder has no images.
    """

    def __init__(self, domains, train_dir, val_dir, eval_dir, img_size, outputs, batch_size, device, fit,
                 save_images=True, num_workers=0, leave_out=()):  # fmt: skip
        self.domains, self.eval_dir, self.save_images = domains, Path(eval_dir), save_images
        self.img_size, self.outputs, self.batch_size = img_size, outputs, batch_size
        self.device, self.fit, self.num_workers = device, fit, num_workers
        self.inception, self.lpips = load_metrics(str(device))
        make_folder(eval_dir)

        def images(root):
            return {name: [p for p in images_below(Path(root, name)) if p not in leave_out] for name in domains}

        self.train_dir, self.val_dir = train_dir, val_dir
        self.train, self.val = images(train_dir), images(val_dir)
        files = {"inception": weights_path(fid.WEIGHTS), "alexnet": weights_path(lpips.WEIGHTS)}
        self.weights = {name: sha256(path)[:8] for name, path in files.items()}  # scores by others do not compare
        self.pool = ThreadPoolExecutor(min(8, usable_cores()))  # for Pillow; torch has threads of its own
        tasks = [f"{safe_name(src)}2{safe_name(trg)}" for src, trg in permutations(domains, 2)]
        if len({task.casefold() for task in tasks}) < len(tasks):
            raise UserError(f"tasks of the domains {', '.join(domains)} would have equal names: rename sub-folders")
        if distributed.is_main_process():
            self._say_what_scores_are_worth()

    def check_images(self):
        """Raise UserError where processes, on other machines say, see other images."""
        for root, images in ((self.train_dir, self.train), (self.val_dir, self.val)):
            same_everywhere([path for paths in images.values() for path in paths], root)

    def _say_what_scores_are_worth(self):
        few = [name for name, paths in self.val.items() if len(paths) < self.outputs]
        if few:
            console.warn(
                f"fewer than {self.outputs} validation images in {', '.join(few)}: outputs in the style of references "
                "repeat themselves there, and their LPIPS is too low"
            )
        few = [name for name, paths in self.train.items() if len(paths) < fid.FEATURES]
        if few:
            console.warn(
                f"fewer than {fid.FEATURES} training images in {', '.join(few)}: FID is too high and compares only "
                "with FID of as many; KID has no such bias"
            )

    def run(self, nets, mode, seed, pause=lambda: None):
        """Scores of all tasks in a mode: {"cat2dog": Scores, ...}. pause(): called after each task.

        Of several processes each translates a share of every task's images; the first compares them.
        """
        found = {}
        for trg in self.domains:  # a target's real images and references serve all its tasks
            real = self.real_features(trg)
            root = cache(lambda real=real: symmetric_root(real.cov.numpy()))  # once, where it is needed
            references = self.reference_codes(nets.style_encoder, trg) if mode == "reference" else None
            for src in self.domains:
                if src != trg:
                    fake, diversity = self.task(nets, src, trg, references, seed)
                    distances = distributed.on_main_process(partial(_distances, real, fake, root))
                    found[src, trg] = Scores(*distances, diversity)
                    pause()
        return {f"{src}2{trg}": found[src, trg] for src, trg in permutations(self.domains, 2)}

    @torch.no_grad()
    def task(self, nets, src, trg, references, seed):
        """Translate the validation images of src into trg -> (Features of the pictures, LPIPS).

        references: style codes to choose from (R, style_dim); None: styles of random codes.
        """
        mode = "latent" if references is None else "reference"
        count, part = len(self.val[src]), self._share(self.val[src])
        gathering = FeatureAccumulator(count * self.outputs, part.start * self.outputs)
        diversity, number = torch.zeros(count, dtype=torch.float64), part.start
        folder = self.eval_dir / f"{safe_name(src)}2{safe_name(trg)}" if self.save_images else None
        distributed.on_main_process(lambda: folder and empty(folder))
        with distributed.sync_errors():
            loader = self._loader(self.val[src][part], test_transform(self.img_size))
            for x_src, _ in console.progress(loader, desc=f"{mode} {src}2{trg}", unit="batch"):
                content = self.fit(partial(Content.of, nets, self._place(x_src)))
                chances = [random_generator(seed, "eval", mode, src, trg, number + n) for n in range(len(x_src))]
                if references is None:
                    s_trg = self._random_codes(nets.mapping_network, self.domains.index(trg), chances)
                else:
                    s_trg = self._chosen(references, chances)  # (outputs, N, style_dim)
                pairs, drawn = PairwiseMean(), []
                for output, codes in enumerate(s_trg, start=1):
                    images, embeddings, features = self.fit(partial(self._draw, nets.generator, content, codes))
                    pairs.add(embeddings)
                    drawn.append(features)
                    if folder is not None:
                        paths = [folder / f"{number + n:04d}_{output:02d}.png" for n in range(1, len(images) + 1)]
                        list(self.pool.map(write_image, paths, images))
                gathering.add(torch.stack(drawn, dim=1).flatten(0, 1))  # source by source, however batches are cut
                diversity[number : number + len(x_src)] = pairs.result()
                number += len(x_src)
        batches = distributed.all_reduce_sum(diversity).split(self.batch_size)
        return gathering.result(), torch.stack([batch.mean() for batch in batches]).mean().item()

    def about(self):
        """Plain values that say what the scores were made with, for the record."""
        return {
            "validation_images": {name: len(paths) for name, paths in self.val.items()},
            "training_images": {name: len(paths) for name, paths in self.train.items()},
            "outputs_per_source": self.outputs,
            "sources_per_batch": self.batch_size,
            "images_for_kid": f"at most {MOST_KEPT} of a set",
            "img_size": self.img_size,
            "weights": self.weights,
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__},
        }

    def real_features(self, domain):
        """Features of a domain's training images: from the disk, where they were made for the same files.

        Of several processes only the first has them then.
        """
        known = []  # stays where it is: it is large
        if distributed.on_main_process(
            lambda: known.append(read_features(self._cache(domain))) or known[0] is not None
        ):
            return known[0] if known else None
        paths, part = self.train[domain], self._share(self.train[domain])
        gathering = FeatureAccumulator(len(paths), part.start)
        with distributed.sync_errors():
            loader = self._loader(paths[part], partial(fid.eval_transform, img_size=self.img_size))
            for x, _ in console.progress(loader, desc=f"real {domain}", unit="batch"):
                gathering.add(self.fit(partial(self._features, self._place(x))))
        found = gathering.result()
        distributed.on_main_process(lambda: write_features(self._cache(domain), found))
        return found

    def _cache(self, domain):
        """Where the Features of a domain's training images are kept; the name tells what they were made of."""
        try:
            files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.train[domain]]
        except OSError as error:
            raise UserError(f"{error.filename} is gone ({error.strerror}): put it back or start anew") from error
        made_of = json.dumps([files, self.img_size, self.weights["inception"]])
        key = hashlib.blake2b(made_of.encode(), digest_size=8).hexdigest()
        return self.eval_dir / f"real_{safe_name(domain)}_{key}.npz"

    def reference_codes(self, style_encoder, domain):
        """Styles of all validation images of a domain: (R, style_dim)."""
        paths, part = self.val[domain], self._share(self.val[domain])
        codes = torch.zeros(len(paths), style_encoder.unshared[0].out_features)
        with distributed.sync_errors():
            loader = self._loader(paths[part], test_transform(self.img_size), self.domains.index(domain))
            if paths[part]:
                found = translate.reference_styles(style_encoder, loader, self.fit, self._place, shown=False)
                codes[part] = found.codes.float().cpu()
        return self._place(distributed.all_reduce_sum(codes))

    def _share(self, paths):
        """Which of the images are this process's; networks see them in the same pieces as in a single process."""
        size = distributed.all_reduce_max(self.fit(lambda size: size))
        return distributed.shard(len(paths), size if self.batch_size % size == 0 else self.batch_size)

    def _loader(self, paths, transform, label=0):
        samples = [(path, label) for path in paths]
        return get_sample_loader(samples, transform, self.batch_size, self.num_workers)

    def _place(self, tensor):
        return tensor.to(self.device)

    def _random_codes(self, mapping_network, label, chances):
        """Styles of random codes, `outputs` for each source: (outputs, N, style_dim)."""
        latent_dim = mapping_network.shared[0].in_features
        z_trg = torch.stack([torch.randn(self.outputs, latent_dim, generator=chance) for chance in chances], dim=1)
        s_trg = translate.latent_styles(mapping_network, z_trg.flatten(0, 1), [label])  # (1, outputs * N, style_dim)
        return s_trg.view(self.outputs, len(chances), -1)

    def _chosen(self, references, chances):
        """For each source `outputs` of the references, different ones while there are: (outputs, N, style_dim).

        Each source has an order of its own, so that its choice depends neither on the batch nor on other sources.
        """
        orders = torch.stack([torch.randperm(len(references), generator=chance) for chance in chances], dim=1)
        return references[orders[torch.arange(self.outputs) % len(references)]]

    def _draw(self, generator, content, s_trg, size):
        """Pictures in 8 bit (N, H, W, 3), their LPIPS embeddings (N, K) and Inception features (N, 2048)."""
        drawn = []
        for part in chunks(len(s_trg), size):
            x_fake = generator.render(content[part], s_trg[part]).float()
            images = to_uint8(x_fake)
            x = fid.normalized(np.stack(list(self.pool.map(self._reduced, images))))
            drawn.append((images, self.lpips(x_fake), self.inception(self._place(x))))
        images, embeddings, features = zip(*drawn, strict=True)
        return np.concatenate(images), torch.cat(embeddings), torch.cat(features)

    def _reduced(self, image):
        return fid.reduced(Image.fromarray(image), self.img_size)

    def _features(self, x, size):
        return torch.cat([self.inception(part) for part in x.split(size)])


def _distances(real, fake, root_of_real):
    """FID and KID of two Features. root_of_real(): the root of the covariance of the real ones."""
    if min(real.count, fake.count) <= FEW and max(real.count, fake.count) <= MOST_KEPT:
        distance = frechet_distance_of_few(real.kept.numpy(), fake.kept.numpy())
    else:
        moments = (real.mean, real.cov, fake.mean, fake.cov)
        distance = frechet_distance(*(m.numpy() for m in moments), root_of_real())
    return distance, kernel_distance(real.kept, fake.kept)


def empty(folder):
    """Make a folder of pictures, without those of an earlier evaluation. Raises UserError."""
    make_folder(folder)
    for old in folder.glob("[0-9]*_[0-9]*.png"):
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{old} cannot be replaced ({error.strerror}): close what holds it open") from error


def check_scorable(domains, img_size):
    """Raise UserError where there is nothing to be scored."""
    if len(domains) < 2 or img_size < 32:
        raise UserError(
            "evaluation needs two domains or more, and pictures of 32 px or more: --eval_every 0 goes without"
        )


def load_metrics(device):
    """[Inception, LPIPS] on a device, a text. Raises MissingWeights that names every file that is missing."""
    networks, missing = [], []
    for load in (fid.pretrained, lpips.pretrained):
        try:
            networks.append(load(device))
        except MissingWeights as error:
            missing.append(str(error))
    if missing:
        raise MissingWeights("; ".join(missing))
    return networks
