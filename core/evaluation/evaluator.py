"""Evaluation: translate every domain into every other and score the outputs by FID, KID and LPIPS (paper, section 3).

A task is an ordered pair of domains, src2trg. Every validation image of src is translated `outputs` times into
trg, in styles of random codes (latent) or of validation images of trg (reference). FID and KID compare all
outputs, in 8 bit, with all training images of trg. LPIPS is the mean distance between the outputs of one source:
it measures diversity. Each batch of outputs is scored in memory; files are written for people only.
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
from core.evaluation.scores import Scores
from core.images.folders import check_same_on_all_ranks, images_below
from core.images.io import to_uint8, write_image
from core.model import Content
from core.sampling import translate
from core.system import console, distributed
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import make_folder, safe_name, sha256
from core.system.random import random_generator
from metrics import fid, lpips
from metrics.lpips import PairwiseMean
from metrics.stats import symmetric_root
from metrics.weights import MissingWeights, weights_path

MODES = ("latent", "reference")


class Evaluation:
    """Scores networks on the images of folders with one sub-folder per domain.

    domains: names in label order. train_dir: real images for FID and KID. val_dir: sources and references.
    eval_dir: takes the outputs, if save_images, and the features of real images, which are computed once.
    outputs: per source and task. batch_size: sources at a time; LPIPS is a mean over such batches.
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
        self.weights = {name: sha256(path)[:8] for name, path in files.items()}  # other weights give other scores
        self.pool = ThreadPoolExecutor(min(8, usable_cores()))  # for Pillow; torch has its own threads
        tasks = [self._task_folder(src, trg).name.casefold() for src, trg in permutations(domains, 2)]
        if len(set(tasks)) < len(tasks):
            raise UserError(f"tasks of the domains {', '.join(domains)} would have equal names: rename sub-folders")
        if distributed.is_main_process():
            self._warn_about_few_images()

    def check_images(self):
        """Raise UserError if processes, for example on other machines, find other images."""
        for root, images in ((self.train_dir, self.train), (self.val_dir, self.val)):
            check_same_on_all_ranks([path for paths in images.values() for path in paths], root)

    def _warn_about_few_images(self):
        repeated = "outputs in the style of references repeat themselves there, and their LPIPS is too low"
        biased = "FID is too high and compares only with FID of as many; KID has no such bias"
        kinds = [("validation", self.val, self.outputs, repeated), ("training", self.train, fid.FEATURES, biased)]
        for kind, images, enough, effect in kinds:
            few = [name for name, paths in images.items() if len(paths) < enough]
            if few:
                console.warn(f"fewer than {enough} {kind} images in {', '.join(few)}: {effect}")

    def run(self, nets, mode, seed, pause=lambda: None):
        """Scores of all tasks in a mode: {"cat2dog": Scores, ...}. pause(): called after each task. Each process
        translates a shard of every task's images; the main process computes the distances."""
        scores = {}
        for trg in self.domains:  # all tasks of a target share its real images and references
            real = self.real_features(trg)
            root = cache(lambda real=real: symmetric_root(real.cov.numpy()))  # slow: once, and only if used
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
        to choose from (R, style_dim); None: styles of random codes."""
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
                features = torch.stack(features, dim=1).flatten(0, 1)  # (N * outputs, 2048), source by source
                accumulator.add(features, sources[0] * self.outputs)
                diversity[sources] = pairs.result()
        means = [batch.mean() for batch in distributed.all_reduce_sum(diversity).split(self.batch_size)]
        return accumulator.result(), torch.stack(means).mean().item()

    def about(self):
        """How the scores were computed, as plain values to save beside them."""
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
        """Features of a domain's training images, from the disk if they were computed from the same files. Only the
        main process, which compares them, reads the file; in that case the others return None."""
        with distributed.sync_errors():
            features = read_features(self._features_file(domain)) if distributed.is_main_process() else None
        if distributed.on_main_process(lambda: features is not None):  # one flag to all: the features are large
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
        """The file for the Features of a domain's training images; its name is a hash of what they depend on."""
        try:
            files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.train[domain]]
        except OSError as error:
            raise UserError(f"{error.filename} is gone ({error.strerror}): put it back or start anew") from error
        content = json.dumps([files, self.img_size, self.weights["inception"]])
        key = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        return self.eval_dir / f"real_{safe_name(domain)}_{key}.npz"

    def _task_folder(self, src, trg):
        return self.eval_dir / f"{safe_name(src)}2{safe_name(trg)}"

    @torch.no_grad()
    def reference_codes(self, style_encoder, domain):
        """Styles of all validation images of a domain: (R, style_dim)."""
        label, paths = self.domains.index(domain), self.val[domain]
        codes = torch.zeros(len(paths), style_encoder.unshared[0].out_features)
        batches = self._batches(paths, test_transform(self.img_size), "references")
        with distributed.sync_errors():
            for numbers, x_ref in batches:
                y_ref = torch.full((len(x_ref),), label, device=self.device)
                codes[numbers] = torch.cat(self.inference_batch.run(style_encoder, x_ref, y_ref)).float().cpu()
        return distributed.all_reduce_sum(codes).to(self.device)

    def _batches(self, paths, transform, title):
        """Iterate over this process's shard of images: (numbers, x), their N indices in paths and (N, 3, H, W). Call it
        outside of `sync_errors`, since it waits for the other processes; images are read in the iteration."""
        size = distributed.all_reduce_max(self.inference_batch.size)
        unit = size if self.batch_size % size == 0 else self.batch_size  # networks get the same parts as in one process
        samples = [(path, number) for number, path in enumerate(paths)][distributed.shard(len(paths), unit)]
        loader = get_sample_loader(samples, transform, self.batch_size, self.num_workers)
        batches = console.progress(loader, desc=title, unit="batch")
        return ((numbers.tolist(), x.to(self.device)) for x, numbers in batches)

    def _random_styles(self, mapping_network, label, generators):
        """Styles of random codes, `outputs` for each source: (outputs, N, style_dim)."""
        latent_dim = mapping_network.shared[0].in_features
        z_trg = torch.stack([torch.randn(self.outputs, latent_dim, generator=g) for g in generators], dim=1)
        s_trg = translate.latent_styles(mapping_network, z_trg.flatten(0, 1), [label])  # (1, outputs * N, style_dim)
        return s_trg.view(self.outputs, len(generators), -1)

    def _choose_references(self, references, generators):
        """Choose `outputs` references for each source, distinct if there are enough: (outputs, N, style_dim). Each
        source shuffles the references by itself, so that its choice depends on no other source."""
        orders = torch.stack([torch.randperm(len(references), generator=g) for g in generators], dim=1)  # (R, N)
        return references[orders[torch.arange(self.outputs) % len(references)]]

    def _to_inception(self, x_fake):
        """Outputs (N, 3, H, W) in 8 bit (N, H, W, 3), and as Inception takes them (N, 3, 299, 299)."""
        images = to_uint8(x_fake)
        resize = partial(fid.resize, img_size=self.img_size)
        resized = np.stack(list(self.pool.map(resize, map(Image.fromarray, images))))
        return images, fid.normalize(resized).to(self.device)


def translate_and_embed(content, s_trg, *, generator, inception, lpips_network, prepare):
    """Translate N sources and embed the outputs -> (images, LPIPS embeddings (N, K), Inception features (N, 2048)).

    prepare(x_fake) returns (images, outputs as Inception takes them). The dry run calls this on tensors without data.
    """
    x_fake = generator.render(content, s_trg)
    images, x_inception = prepare(x_fake)
    return images, lpips_network(x_fake.float()), inception(x_inception)


def _make_empty(folder):
    """Make a folder for outputs, without those of an earlier evaluation. Raises UserError."""
    make_folder(folder)
    for old in folder.glob("[0-9]*_[0-9]*.png"):
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{old} cannot be replaced ({error.strerror}): close what holds it open") from error


def images_by_domain(root, domains, skipped_images=()):
    """The images of a folder with one sub-folder per domain: {name: sorted paths}, without skipped ones."""
    return {name: [path for path in images_below(Path(root, name)) if path not in skipped_images] for name in domains}


def check_scorable(domains, img_size):
    """Raise UserError if there are too few domains, or too small images, to evaluate."""
    if len(domains) < 2 or img_size < 32:
        raise UserError(
            "evaluation needs two domains or more, and pictures of 32 px or more: --eval_every 0 goes without"
        )


def load_metric_networks(device):
    """[Inception, LPIPS] on a device, given by its name. Raises MissingWeights that names every missing file."""
    networks, missing = [], []
    for load in (fid.pretrained, lpips.pretrained):
        try:
            networks.append(load(device))
        except MissingWeights as error:
            missing.append(str(error))
    if missing:
        raise MissingWeights("; ".join(missing))
    return networks
