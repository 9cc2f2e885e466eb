"""Data sets with one folder per domain, balanced loaders, and the InputFetcher.

The batch of training iteration i depends only on (seed, i), not on the number of workers or on a resume.
"""

from bisect import bisect_left
from functools import partial
from pathlib import Path

import torch
from munch import Munch
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from core.images.folders import domain_names, images_below
from core.images.io import read_rgb, squared
from core.system import console
from core.system.device import CopyToDevice, usable_cores
from core.system.distributed import shard, world_size
from core.system.errors import UserError
from core.system.random import random_generator
from core.system.signals import restore_child_signal
from core.system.workers import Loader

# PIL image -> tensor (3, H, W) in [-1, 1]
in_range = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
MAX_WARNINGS = 10  # for images that became unreadable; a missing folder raises an error instead


class ImageList(Dataset):
    """Data set of (image, label) in a given order. samples: [(path, label), ...]. least_side: see `read_rgb`."""

    def __init__(self, samples, transform=None, least_side=None):
        self.samples, self.transform, self.least_side = samples, transform, least_side
        self.targets = [label for _, label in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        image = read_rgb(path, self.least_side)
        return image if self.transform is None else self.transform(image), label


class DomainFolder(ImageList):
    """The images of a folder's domains without skipped ones. The next of the domain replaces an unreadable image."""

    def __init__(self, root, transform=None, least_side=None, skipped_images=()):
        folders = [Path(root, name) for name in domain_names(root)]
        samples = [(path, label) for label, folder in enumerate(folders) for path in images_below(folder)]
        super().__init__([sample for sample in samples if sample[0] not in skipped_images], transform, least_side)
        self.members = {}  # label -> indices of its images
        for index, label in enumerate(self.targets):
            self.members.setdefault(label, []).append(index)
        self.warned = torch.zeros(len(self), dtype=torch.bool).share_memory_()  # shared by all workers

    def __getitem__(self, index):
        members = self.members[self.targets[index]]
        position = bisect_left(members, index)
        for other in members[position:] + members[:position]:
            try:
                return super().__getitem__(other)
            except UserError as error:
                unreadable = error
                if not self.warned[other] and self.warned.sum() < MAX_WARNINGS:
                    self.warned[other] = True
                    console.warn(f"{error} Using another image of the same domain instead.")
        raise unreadable


class ReferenceDataset(DomainFolder):
    """Data set of (image, second image of the same domain, label). The default generator draws the second image."""

    def __getitem__(self, index):
        x_ref, label = super().__getitem__(index)
        members = self.members[label]
        x_ref2, _ = super().__getitem__(members[torch.randint(len(members), ()).item()])
        return x_ref, x_ref2, label


class SeededDataset(Dataset):
    """Data set whose item (index, seed) takes all random numbers from the seed."""

    def __init__(self, dataset):
        self.dataset, self.targets = dataset, dataset.targets

    def __getitem__(self, index_and_seed):
        index, seed = index_and_seed
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.dataset[index]


class BalancedBatchSampler(Sampler):
    """Sampler of this rank's part of batches of (index, seed). All domains are equally likely. Batches are numbered:
    the first pass gives `start` ... `stop` - 1, the next pass continues after it."""

    def __init__(self, labels, batch_size, key, start, stop):
        labels = torch.as_tensor(labels)
        self.weights = (1 / labels.bincount().double())[labels]
        self.batch_size, self.key, self.start, self.length = batch_size, key, start, stop - start

    def __len__(self):
        return self.length

    def __iter__(self):
        start, self.start = self.start, self.start + self.length
        for iteration in range(start, self.start):
            generator = random_generator(*self.key, iteration)
            indices = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=generator)
            seeds = torch.randint(2**62, (self.batch_size,), generator=generator)
            yield list(zip(indices.tolist(), seeds.tolist(), strict=True))[shard(self.batch_size)]


def train_transform(img_size, prob):
    """Crop with probability `prob`, resize, flip, scale to [-1, 1]."""
    crop = v2.RandomApply([v2.RandomResizedCrop(img_size, scale=(0.8, 1.0), ratio=(0.9, 1.1))], p=prob)
    return v2.Compose([crop, v2.Resize([img_size, img_size]), v2.RandomHorizontalFlip(), in_range])


def test_transform(img_size, resize="stretch"):
    """Make the image square (see `core.images.io.squared`), scale to [-1, 1]."""
    return v2.Compose([partial(squared, size=img_size, resize=resize), in_range])


def get_train_loader(root, which="source", img_size=256, batch_size=8, prob=0.5, num_workers=4, seed=777, start=0,
                     stop=None, pin_memory=False, skipped_images=()):  # fmt: skip
    """Return a DataLoader of balanced batches, (x, y) or for "reference" (x, x2, y).

    It gives the batches of iterations start ... stop - 1, or of one epoch without `stop`.
    """
    dataset_class = {"source": DomainFolder, "reference": ReferenceDataset}[which]
    least_side = 2 * img_size  # A crop is then still larger than img_size.
    dataset = SeededDataset(dataset_class(root, train_transform(img_size, prob), least_side, skipped_images))
    if stop is None:
        stop = start + max(1, len(dataset.targets) // batch_size)
    sampler = BalancedBatchSampler(dataset.targets, batch_size, (seed, which), start, stop)
    return Loader(dataset, batch_sampler=sampler, pin_memory=pin_memory, **_worker_options(num_workers))


def get_test_loader(root, img_size=256, batch_size=32, shuffle=True, num_workers=4, seed=777, skipped_images=()):
    """Return a DataLoader of batches (x, y) of every image once. The seed determines the order of a shuffle."""
    dataset = DomainFolder(root, test_transform(img_size), skipped_images=skipped_images)
    order = random_generator(seed, "test order")
    return Loader(dataset, batch_size, shuffle=shuffle, generator=order, **_worker_options(num_workers))


def get_sample_loader(samples, transform, batch_size=8, num_workers=4, **options):
    """Return a DataLoader of batches (x, y) of the samples (path, label), in their order. options: of a DataLoader."""
    return Loader(ImageList(samples, transform), batch_size, **_worker_options(num_workers), **options)


def _worker_options(num_workers):
    num_workers = min(num_workers, usable_cores())  # More would not be faster, and PyTorch would warn.
    return {"num_workers": num_workers, "persistent_workers": num_workers > 0}


class InputFetcher:
    """Endless iterator over inputs from loaders, on a device.

    mode "train": Munch(x_src, y_src, x_ref, x_ref2, y_ref, z_trg, z_trg2); "val": Munch(x_src, y_src, x_ref, y_ref);
    "test": Munch(x, y). Images are (N, 3, H, W), labels (N,), codes (N, latent_dim). Codes depend on (seed, iteration).
    """

    def __init__(self, loader, loader_ref=None, latent_dim=16, mode="train", seed=777, start=0, device="cpu"):
        self.batches = _endless(loader)
        self.batches_ref = _endless(loader if loader_ref is None else loader_ref)  # a separate pass
        self.latent_dim, self.mode, self.seed, self.iteration = latent_dim, mode, seed, start
        self.to_device = CopyToDevice(device)

    def __iter__(self):
        return self

    def __next__(self):
        x, y = next(self.batches)
        if self.mode == "test":
            inputs = Munch(x=x, y=y)
        elif self.mode == "val":
            x_ref, y_ref = next(self.batches_ref)
            inputs = Munch(x_src=x, y_src=y, x_ref=x_ref, y_ref=y_ref)
        else:
            x_ref, x_ref2, y_ref = next(self.batches_ref)
            generator = random_generator(self.seed, "z", self.iteration)
            count = len(y) * world_size()
            z_trg, z_trg2 = torch.randn(2, count, self.latent_dim, generator=generator)[:, shard(count)]
            inputs = Munch(x_src=x, y_src=y, x_ref=x_ref, x_ref2=x_ref2, y_ref=y_ref, z_trg=z_trg, z_trg2=z_trg2)
        self.iteration += 1
        return Munch(self.to_device(inputs))


def _endless(loader):
    while True:
        batches = iter(loader)
        restore_child_signal()
        yield from batches
