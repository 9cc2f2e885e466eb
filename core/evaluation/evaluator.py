"""Evaluation: translate every domain into every other and score the outputs by FID, KID and LPIPS (paper, section 3).

A task is an ordered pair of domains, src2trg. It translates every validation image of src `outputs` times into
trg, in styles of random codes (latent) or of validation images of trg (reference). FID and KID compare all
8-bit outputs with all training images of trg. LPIPS is the mean distance between the outputs of one source
and measures diversity. The scores are computed in memory; image files are for inspection only.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import chain, permutations
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

from core.data_loader import get_sample_loader, test_transform
from core.evaluation.features import MOST_KEPT, FeatureAccumulator, distances, read_features, write_features
from core.evaluation.scores import Scores, missing_scores
from core.images.folders import check_same_on_all_ranks, images_below
from core.images.io import to_uint8, write_image
from core.model import Content
from core.sampling import translate
from core.system import console, distributed
from core.system.device import usable_cores
from core.system.errors import UserError, reason
from core.system.files import clear_away, make_folder, safe_name, sha256
from core.system.random import random_generator
from metrics import fid, lpips
from metrics.lpips import PairwiseMean
from metrics.stats import symmetric_root
from metrics.weights import MissingWeights, weights_path

MODES = ("latent", "reference")


class Evaluation:
    """Scores of networks on folders of images with one sub-folder per domain.

    domains: names in label order. train_dir: real images for FID and KID. val_dir: sources and references.
    eval_dir: folder for the outputs, if save_images, and for the cached features of real images.
    outputs: number per source and task. batch_size: sources per batch; LPIPS is the mean over batches.
    inference_batch: a MicroBatch. skipped_images: paths to ignore. Raises MissingWeights, UserError.
    """

    def __init__(self, domains, *, train_dir, val_dir, eval_dir, img_size, outputs, batch_size, device,
                 inference_batch, save_images=True, num_workers=0, skipped_images=()):  # fmt: skip
        self.domains, self.train_dir, self.val_dir, self.eval_dir = domains, train_dir, val_dir, Path(eval_dir)
        self.img_size, self.outputs, self.batch_size = img_size, outputs, batch_size
        self.device, self.inference_batch = device, inference_batch
        self.save_images, self.num_workers = save_images, num_workers
        self.inception, self.lpips = load_metric_networks(str(device))
        make_folder(eval_dir)
        self.train = images_by_domain(train_dir, domains, skipped_images)
        self.val = images_by_domain(val_dir, domains, skipped_images)
        files = {"inception": weights_path(fid.WEIGHTS), "alexnet": weights_path(lpips.WEIGHTS)}
        self.weights = {name: sha256(path)[:8] for name, path in files.items()}  # scores depend on the weights
        self.pool = ThreadPoolExecutor(min(8, usable_cores()))  # for Pillow; PyTorch has its own threads
        tasks = [self._task_folder(src, trg).name.casefold() for src, trg in permutations(domains, 2)]
        if len(set(tasks)) < len(tasks):
            equal = f"two tasks of the domains {', '.join(domains)} have equal names"
            raise UserError(f"Cannot evaluate ({equal}). Rename the sub-folders of --train_img_dir and --val_img_dir.")
        if distributed.is_main_process():
            self._warn_about_few_images()

    def check_images(self):
        """Raise UserError if the processes, for example on several machines, find different images."""
        for root, images in ((self.train_dir, self.train), (self.val_dir, self.val)):
            check_same_on_all_ranks([path for paths in images.values() for path in paths], root)

    def _warn_about_few_images(self):
        repeated = "Reference-guided outputs repeat there, so their LPIPS is too low."
        biased = "FID is too high and only comparable at equal numbers of images. KID has no such bias."
        kinds = [("validation", self.val, self.outputs, repeated), ("training", self.train, fid.FEATURES, biased)]
        for kind, images, enough, effect in kinds:
            few = [name for name, paths in images.items() if len(paths) < enough]
            if few:
                console.warn(f"Fewer than {console.counted(enough, f'{kind} image')} in {', '.join(few)}. {effect}")
        for sentence in self.missing_scores().values():
            console.warn(f"{sentence} Means are over the scores that exist.")

    def missing_scores(self):
        """Return {metric: sentence} of the scores that these images cannot have."""
        training, validation = ({name: len(paths) for name, paths in part.items()} for part in (self.train, self.val))
        return missing_scores(training, validation, self.outputs)

    def run(self, nets, mode, seed, pause=lambda: None):
        """Compute the scores of all tasks in a mode: {"cat2dog": Scores, ...}. pause(): called after each task. Each
        process translates a shard of every task's images; the main process computes the distances."""
        scores = {}
        for trg in self.domains:  # all tasks of a target share its real images and references
            real = self.real_features(trg)
            root = cache(lambda real=real: symmetric_root(real.cov.numpy()))  # slow: computed once, only if needed
            references = self.reference_codes(nets.style_encoder, trg) if mode == "reference" else None
            for src in self.domains:
                if src != trg:
                    fake, diversity = self.task(nets, src, trg, references, seed)
                    frechet, kernel = distributed.on_main_process(partial(distances, real, fake, root))
                    scores[src, trg] = Scores(FID=frechet, KID=kernel, LPIPS=diversity)
                    pause()
        return {f"{src}2{trg}": scores[src, trg] for src, trg in permutations(self.domains, 2)}

    @torch.no_grad()
    def task(self, nets, src, trg, references, seed):
        """Translate the validation images of src into trg -> (Features of the outputs, LPIPS). references: style codes
        (R, style_dim) to choose from; None: styles of random codes."""
        mode = "latent" if references is None else "reference"
        accumulator = FeatureAccumulator(len(self.val[src]) * self.outputs)
        diversity = torch.zeros(len(self.val[src]), dtype=torch.float64)
        folder = self._task_folder(src, trg)
        if self.save_images:
            distributed.on_main_process(partial(_make_empty, folder))
        batches = self._batches(self.val[src], test_transform(self.img_size), f"{mode} {src}2{trg}")
        networks = {"generator": nets.generator, "inception": self.inception, "lpips_network": self.lpips}
        translate_part = partial(translate_and_embed, prepare=self._to_inception, **networks)
        with distributed.sync_errors():
            for sources, x_src in batches:
                content = Content.of(nets, x_src, self.inference_batch)
                generators = [random_generator(seed, "eval", mode, src, trg, source) for source in sources]
                if references is None:
                    s_trg = self._random_styles(nets.mapping_network, self.domains.index(trg), generators)
                else:
                    s_trg = self._choose_references(references, generators)
                pairs, features = PairwiseMean(), []
                for output, codes in enumerate(s_trg, start=1):
                    parts = self.inference_batch.run(translate_part, content, codes)
                    images, embeddings, features_of_output = zip(*parts, strict=True)
                    pairs.add(torch.cat(embeddings))
                    features.append(torch.cat(features_of_output))
                    if self.save_images:
                        files = [folder / f"{source + 1:04d}_{output:02d}.png" for source in sources]
                        list(self.pool.map(write_image, files, chain.from_iterable(images)))
                features = torch.stack(features, dim=1).flatten(0, 1)  # (N * outputs, 2048), ordered by source
                accumulator.add(features, sources[0] * self.outputs)
                diversity[sources] = pairs.result()
        means = [batch.mean() for batch in distributed.all_reduce_sum(diversity).split(self.batch_size)]
        return accumulator.result(), torch.stack(means).mean().item()

    def about(self):
        """Return how the scores are computed, as plain values to save with them."""
        return {
            "validation_images": {name: len(paths) for name, paths in self.val.items()},
            "training_images": {name: len(paths) for name, paths in self.train.items()},
            "outputs_per_source": self.outputs,
            "sources_per_batch": self.batch_size,
            "missing_scores": self.missing_scores(),
            "images_for_kid": f"at most {MOST_KEPT} of a set",
            "img_size": self.img_size,
            "weights": self.weights,
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__},
        }

    def real_features(self, domain):
        """Return the Features of a domain's training images, cached on disk for unchanged files. Only the main process
        reads the cache, since it computes the distances; the other processes then return None."""
        with distributed.sync_errors():
            file, count = self._features_file(domain), len(self.train[domain])
            features = read_features(file, count) if distributed.is_main_process() else None
        if distributed.on_main_process(lambda: features is not None):  # sends one flag, as the features are large
            return features
        accumulator = FeatureAccumulator(len(self.train[domain]))
        transform = partial(fid.eval_transform, img_size=self.img_size)
        batches = self._batches(self.train[domain], transform, f"real {domain}")
        with distributed.sync_errors():
            for numbers, x in batches:
                accumulator.add(torch.cat(self.inference_batch.run(self.inception, x)), numbers[0])
        features = accumulator.result()
        distributed.on_main_process(lambda: write_features(self._features_file(domain), features))
        return features

    def _features_file(self, domain):
        """Return the cache file for the Features of a domain's training images; its name has a hash of their inputs."""
        try:
            files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.train[domain]]
        except OSError as error:
            raise UserError(
                f"Cannot read {error.filename} ({reason(error)}). Restore the file, or start again without it."
            ) from error
        content = json.dumps([files, self.img_size, self.weights["inception"]])
        key = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        return self.eval_dir / f"real_{safe_name(domain)}_{key}.npz"

    def _task_folder(self, src, trg):
        return self.eval_dir / f"{safe_name(src)}2{safe_name(trg)}"

    @torch.no_grad()
    def reference_codes(self, style_encoder, domain):
        """Encode all validation images of a domain: styles (R, style_dim)."""
        label, paths = self.domains.index(domain), self.val[domain]
        codes = torch.zeros(len(paths), style_encoder.unshared[0].out_features)
        batches = self._batches(paths, test_transform(self.img_size), "references")
        with distributed.sync_errors():
            for numbers, x_ref in batches:
                y_ref = torch.full((len(x_ref),), label, device=self.device)
                codes[numbers] = torch.cat(self.inference_batch.run(style_encoder, x_ref, y_ref)).float().cpu()
        return distributed.all_reduce_sum(codes).to(self.device)

    def _batches(self, paths, transform, title):
        """Return an iterator over this process's shard of images: (N indices in paths, x (N, 3, H, W)). Call it outside
        of `sync_errors`, since it waits for the other processes; the iterator reads the images."""
        size = distributed.all_reduce_max(self.inference_batch.size)
        unit = size if self.batch_size % size == 0 else self.batch_size  # same parts as in a single process
        samples = [(path, number) for number, path in enumerate(paths)][distributed.shard(len(paths), unit)]
        loader = get_sample_loader(samples, transform, self.batch_size, self.num_workers)
        batches = console.progress(loader, desc=title, unit="batch")
        return ((numbers.tolist(), x.to(self.device)) for x, numbers in batches)

    def _random_styles(self, mapping_network, label, generators):
        """Return styles of random codes, `outputs` per source: (outputs, N, style_dim)."""
        latent_dim = mapping_network.shared[0].in_features
        z_trg = torch.stack([torch.randn(self.outputs, latent_dim, generator=g) for g in generators], dim=1)
        s_trg = translate.latent_styles(mapping_network, z_trg.flatten(0, 1), [label])  # (1, outputs * N, style_dim)
        return s_trg.view(self.outputs, len(generators), -1)

    def _choose_references(self, references, generators):
        """Choose `outputs` references per source, distinct if there are enough: (outputs, N, style_dim). Each source
        shuffles the references with its own generator: its choice does not depend on the other sources."""
        orders = torch.stack([torch.randperm(len(references), generator=g) for g in generators], dim=1)  # (R, N)
        return references[orders[torch.arange(self.outputs) % len(references)]]

    def _to_inception(self, x_fake):
        """Convert outputs (N, 3, H, W) to 8 bit (N, H, W, 3) and to inputs of Inception (N, 3, 299, 299)."""
        images = to_uint8(x_fake)
        resize = partial(fid.resize, img_size=self.img_size)
        resized = np.stack(list(self.pool.map(resize, map(Image.fromarray, images))))
        return images, fid.normalize(resized).to(self.device)


def translate_and_embed(content, s_trg, *, generator, inception, lpips_network, prepare):
    """Translate N sources and embed the outputs -> (images, LPIPS embeddings (N, K), Inception features (N, 2048)).

    prepare(x_fake) returns (images, inputs of Inception). The dry run calls this function with tensors without data.
    """
    x_fake = generator.render(content, s_trg)
    images, x_inception = prepare(x_fake)
    return images, lpips_network(x_fake.float()), inception(x_inception)


def _make_empty(folder):
    """Create a folder for outputs and delete those of an earlier evaluation. Raises UserError."""
    make_folder(folder)
    clear_away(folder, older_than=3600)
    for old in folder.glob("[0-9]*_[0-9]*.png"):
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"Cannot delete {old} ({reason(error)}). Close any program that uses it.") from error


def images_by_domain(root, domains, skipped_images=()):
    """Return the images of a folder with one sub-folder per domain, without skipped ones: {name: sorted paths}."""
    return {name: [path for path in images_below(Path(root, name)) if path not in skipped_images] for name in domains}


def check_scorable(domains, img_size):
    """Raise UserError if there are too few domains or the images are too small for an evaluation."""
    if len(domains) < 2 or img_size < 32:
        raise UserError(
            f"Cannot evaluate {console.counted(len(domains), 'domain')} at {img_size} px "
            "(evaluation needs at least 2 domains and 32 px). Pass --eval_every 0 to train without evaluation."
        )


def load_metric_networks(device):
    """Load [Inception, LPIPS] to a device, given by its name. Raises MissingWeights with every missing file."""
    networks, missing = [], []
    for load in (fid.pretrained, lpips.pretrained):
        try:
            networks.append(load(device))
        except MissingWeights as error:
            missing.append(str(error))
    if missing:
        raise MissingWeights(" ".join(missing))
    return networks
