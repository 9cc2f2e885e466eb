"""Evaluation: translate every domain into every other and score the outputs (paper, section 3).

A task is an ordered pair of domains, src2trg. It translates every validation image of src `outputs` times into
trg, in styles of random codes (latent) or of validation images of trg (reference). Scores of sets, such as FID, compare
all 8-bit outputs with all training images of trg. LPIPS is the mean distance between the outputs of one source and
measures diversity. Numbers per image compare an output with its source. The scores are computed in memory; image files
are for inspection only.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image

from core.data_loader import get_sample_loader, test_transform
from core.evaluation.features import FeatureAccumulator, cache_file, read_features, write_features
from core.evaluation.per_image import NUMBERS
from core.evaluation.score_page import PAGE
from core.evaluation.scores import Scores, missing_scores
from core.evaluation.source_batch import SourceBatch
from core.images.folders import check_same_on_all_ranks, images_below
from core.images.io import to_uint8, write_image
from core.report.page import check_page
from core.sampling import translate
from core.system import console, distributed
from core.system.device import usable_cores
from core.system.errors import UserError
from core.system.files import delete_earlier, make_folder, safe_name, sha256
from core.system.random import random_generator
from metrics import fid, lpips
from metrics.classifier import accuracy, fit_classifier
from metrics.lpips import PairwiseMean
from metrics.sets import MOST_KEPT, set_scores
from metrics.ssim import luma, ssim
from metrics.weights import MissingWeights, weights_path


@dataclass(frozen=True)
class RealImages:
    """What an evaluation needs of real images, for all modes and seeds."""

    codes: dict  # {domain: styles of its validation images (R, style_dim)}
    sets: dict  # {domain: FeatureSet of its training images}, used by the main process
    classifier: tuple  # of domains by features, from `fit_classifier`
    classifier_accuracy: float  # on validation images, which it has not seen; mean over domains


class Evaluation:
    """Scores of networks on folders of images with one sub-folder per domain.

    domains: names in label order. train_dir: real images. val_dir: sources and references.
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
        check_page(Path(eval_dir, PAGE))
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
        for sentence in dict.fromkeys(self.missing_scores().values()):
            console.warn(f"{sentence} Means are over the scores that exist.")

    def missing_scores(self):
        """Return {metric: sentence} of the scores that these images cannot have."""
        training, validation = ({name: len(paths) for name, paths in part.items()} for part in (self.train, self.val))
        return missing_scores(training, validation, self.outputs)

    def real_images(self, nets):
        """Return the RealImages for all modes and seeds of an evaluation of networks."""
        sets, validation = ({name: self._real_features(kind, name, part[name]) for name in self.domains}
                            for kind, part in (("real", self.train), ("val", self.val)))  # fmt: skip
        codes = {domain: self.reference_codes(nets.style_encoder, domain) for domain in self.domains}

        def fit():
            classifier = fit_classifier([sets[domain].kept for domain in self.domains])
            right = [accuracy(classifier, validation[domain].kept, n) for n, domain in enumerate(self.domains)]
            return classifier, float(np.mean(right))

        return RealImages(codes, sets, *distributed.on_main_process(fit))

    def run(self, nets, mode, seed, real, per_image, pause=lambda: None):
        """Compute the scores of all tasks in a mode: {"cat2dog": Scores, ...}. real: from `real_images`.

        per_image: a PerImage, to which the outputs are added. pause(): called after each task. Each process translates
        a shard of every task's images; the main process computes the scores of sets.
        """
        scores = {}
        for src, trg in permutations(self.domains, 2):
            fake, means = self.task(nets, src, trg, mode, seed, real, per_image)
            compare = partial(self._compare, real, trg, fake)
            scores[f"{src}2{trg}"] = Scores(**distributed.on_main_process(compare), **means)
            pause()
        return scores

    def _compare(self, real, trg, fake):
        """Return {name: score} of a task's outputs, a FeatureSet, against real images."""
        right = accuracy(real.classifier, fake.kept, self.domains.index(trg))
        return set_scores(real.sets[trg], fake) | {"accuracy": right}

    @torch.no_grad()
    def task(self, nets, src, trg, mode, seed, real, per_image):
        """Translate the validation images of src into trg -> (FeatureSet of the outputs, {name: mean over outputs})."""
        paths, folder = self.val[src], self._task_folder(src, trg)
        accumulator = FeatureAccumulator(len(paths) * self.outputs)
        diversity = torch.zeros(len(paths), dtype=torch.float64)
        numbers = torch.zeros(len(paths), self.outputs, len(NUMBERS), dtype=torch.float64)
        if self.save_images:
            distributed.on_main_process(partial(delete_earlier, folder, "[0-9]*_[0-9]*.png"))
        batches = self._batches(paths, test_transform(self.img_size), f"{mode} {src}2{trg}")
        with distributed.sync_errors():
            for sources, x_src in batches:
                own, networks = real.codes[src][sources], (self.inception, self.lpips)
                batch = SourceBatch(nets, networks, x_src, own, self.inference_batch)
                s_trg = self._styles(nets.mapping_network, src, trg, mode, seed, sources, real.codes[trg])
                pairs, features = PairwiseMean(), []
                for output, codes in enumerate(s_trg):
                    done = batch.translate(codes, self._prepare, and_back=output == 0)
                    pairs.add(done.embeddings)
                    features.append(done.features)
                    numbers[sources, output] = done.numbers
                    indices = [per_image.count + source * self.outputs + output for source in sources]
                    per_image.add_pictures(indices, done.numbers, done.shown)
                    if self.save_images:
                        files = [folder / f"{source + 1:04d}_{output + 1:02d}.png" for source in sources]
                        list(self.pool.map(write_image, files, done.images))
                features = torch.stack(features, dim=1).flatten(0, 1)  # (N * outputs, 2048), ordered by source
                accumulator.add(features, sources[0] * self.outputs)
                diversity[sources] = pairs.result()
        diversity, numbers = map(distributed.all_reduce_sum, (diversity, numbers))
        names = [f"code {output + 1}" for output in range(self.outputs)]
        styles = [names] * len(paths)
        if mode == "reference":
            names, chosen = self._names(self.val[trg]), self._chosen(src, trg, seed, range(len(paths)))
            styles = [[names[n] for n in row] for row in chosen.tolist()]
        per_image.add_task({"mode": mode, "seed": seed, "domain": trg}, self._names(paths), styles, numbers)
        kept = [*numbers[..., :2].mean((0, 1)).tolist(), numbers[:, 0, 2].mean().item()]
        means = dict(zip(NUMBERS, kept, strict=True))
        means["LPIPS"] = torch.stack([batch.mean() for batch in diversity.split(self.batch_size)]).mean().item()
        return accumulator.result(), means

    def _styles(self, mapping_network, src, trg, mode, seed, sources, references):
        """Return the styles for N sources of a task: (outputs, N, style_dim). Each source has its own generator, so its
        styles do not depend on the other sources. references: styles of the validation images of trg."""
        if mode == "reference":
            return references[self._chosen(src, trg, seed, sources).T]
        latent_dim, label = mapping_network.shared[0].in_features, self.domains.index(trg)
        generators = [random_generator(seed, "eval", mode, src, trg, source) for source in sources]
        z_trg = torch.stack([torch.randn(self.outputs, latent_dim, generator=g) for g in generators], dim=1)
        s_trg = translate.latent_styles(mapping_network, z_trg.flatten(0, 1), [label])  # (1, outputs * N, style_dim)
        return s_trg.view(self.outputs, len(sources), -1)

    def _chosen(self, src, trg, seed, sources):
        """Choose references for N sources, distinct ones if there are enough: indices (N, outputs)."""
        generators = [random_generator(seed, "eval", "reference", src, trg, source) for source in sources]
        count = len(self.val[trg])
        turns = torch.arange(self.outputs) % count
        return torch.stack([torch.randperm(count, generator=g)[turns] for g in generators])

    def _names(self, paths):
        return [path.relative_to(self.val_dir).as_posix() for path in paths]

    def about(self, real):
        """Return how the scores are computed, as plain values to save with them. real: RealImages."""
        return {
            "validation_images": {name: len(paths) for name, paths in self.val.items()},
            "training_images": {name: len(paths) for name, paths in self.train.items()},
            "outputs_per_source": self.outputs,
            "sources_per_batch": self.batch_size,
            "missing_scores": self.missing_scores(),
            "classifier_accuracy": real.classifier_accuracy,
            "images_per_set": f"at most {MOST_KEPT}, for FID all",
            "img_size": self.img_size,
            "weights": self.weights,
            "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__},
        }

    def _real_features(self, kind, domain, paths):
        """Return the FeatureSet of real images, cached on disk for unchanged files. Only the main process reads the
        cache, since it computes the scores; the other processes then return None."""
        with distributed.sync_errors():
            settings = [self.img_size, self.weights["inception"]]
            file = cache_file(self.eval_dir, f"{kind}_{safe_name(domain)}", paths, settings)
            features = read_features(file, len(paths)) if distributed.is_main_process() else None
        if distributed.on_main_process(lambda: features is not None):  # sends one flag, as the features are large
            return features
        accumulator = FeatureAccumulator(len(paths))
        batches = self._batches(paths, partial(fid.eval_transform, img_size=self.img_size), f"real {domain}")
        with distributed.sync_errors():
            for numbers, x in batches:
                accumulator.add(torch.cat(self.inference_batch.run(self.inception, x)), numbers[0])
        features = accumulator.result()
        distributed.on_main_process(lambda: write_features(file, features))
        return features

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

    def _prepare(self, x_fake, luma_src):
        """Return outputs (N, 3, H, W) in 8 bit (N, H, W, 3) and as inputs of Inception (N, 3, 299, 299), and their SSIM
        with the sources, of which luma_src (N, H, W) is the luma."""
        images = to_uint8(x_fake)
        resize = partial(fid.resize, img_size=self.img_size)
        resized = np.stack(list(self.pool.map(resize, map(Image.fromarray, images))))
        return images, fid.normalize(resized).to(self.device), ssim(luma(images).to(self.device), luma_src)


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
