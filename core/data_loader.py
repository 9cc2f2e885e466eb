"""Data sets of one folder per domain, balanced and reproducible loaders, and the InputFetcher.

What training iteration i sees is a function of (seed, i): a sampler draws, for every iteration from a
generator of its own, which images to take and one number for each; the image's crop and flip and its
second reference are drawn from that number. So neither workers nor a resume change anything.
"""

from bisect import bisect_left
from functools import partial
from pathlib import Path

import torch
from munch import Munch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from core.images.folders import domain_names, images_below
from core.images.io import read_rgb, squared
from core.system import console
from core.system.device import usable_cores
from core.system.distributed import shard, world_size
from core.system.errors import UserError
from core.system.random import random_generator
from core.system.signals import children_may_die, leave_to_the_parent

MOST_NAMED = 10  # images that broke during a run; where a whole folder is gone, one sentence ends it


class ImageList(Dataset):
    """Given images in a given order; items (image, label). samples: list of (path, label).

    least_side: see `read_rgb`.
    """

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
    """The images of a folder with one sub-folder per domain, labelled by `domain_names`.

    leave_out: paths that do not count. An image that breaks later is replaced by the next one of its domain,
    and named once.
    """

    def __init__(self, root, transform=None, least_side=None, leave_out=()):
        folders = [Path(root, name) for name in domain_names(root)]
        samples = [(path, label) for label, folder in enumerate(folders) for path in images_below(folder)]
        super().__init__([sample for sample in samples if sample[0] not in leave_out], transform, least_side)
        self.members = {}  # label -> indices of its images
        for index, label in enumerate(self.targets):
            self.members.setdefault(label, []).append(index)
        self.named = torch.zeros(len(self), dtype=torch.bool).share_memory_()  # by all processes that read

    def __getitem__(self, index):
        members = self.members[self.targets[index]]
        place = bisect_left(members, index)
        for other in members[place:] + members[:place]:
            try:
                return super().__getitem__(other)
            except UserError as error:
                broken = error
                if not self.named[other] and self.named.sum() < MOST_NAMED:
                    self.named[other] = True
                    console.warn(f"{error}; until then another of its domain stands in")
        raise broken


class ReferenceDataset(Dataset):
    """References; items (image, second image of the same domain, label).

    The second one is drawn from torch's default generator, as torchvision's transforms are.
    """

    def __init__(self, root, transform=None, least_side=None, leave_out=()):
        self.images = DomainFolder(root, transform, least_side, leave_out)
        self.targets = self.images.targets

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        x_ref, label = self.images[index]
        members = self.images.members[label]
        x_ref2, _ = self.images[members[torch.randint(len(members), ()).item()]]
        return x_ref, x_ref2, label


class Drawn(Dataset):
    """A data set whose chance is in the index: item (index, number) draws from that number alone."""

    def __init__(self, dataset):
        self.dataset, self.targets = dataset, dataset.targets

    def __getitem__(self, draw):
        index, number = draw
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            return self.dataset[index]


class BalancedDraws(Sampler):
    """Batches of (index, number) for the iterations start ... stop - 1, every domain equally likely.

    Indices are drawn with replacement, with weight 1 / size of the image's domain. Of several processes each
    draws the whole batch and keeps its share. Another pass goes on with the iterations that follow.
    """

    def __init__(self, labels, batch_size, key, start, stop):
        labels = torch.as_tensor(labels)
        self.weights = (1 / labels.bincount().double())[labels]
        self.batch_size, self.key, self.next, self.length = batch_size, key, start, stop - start

    def __len__(self):
        return self.length

    def __iter__(self):
        iterations = range(self.next, self.next + self.length)
        self.next = iterations.stop
        for iteration in iterations:
            generator = random_generator(*self.key, iteration)
            indices = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=generator)
            numbers = torch.randint(2**62, (self.batch_size,), generator=generator)
            yield list(zip(indices.tolist(), numbers.tolist(), strict=True))[shard(self.batch_size)]


def train_transform(img_size, prob):
    """Crop with probability `prob`, resize, flip, scale to [-1, 1]."""
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomResizedCrop(img_size, scale=(0.8, 1.0), ratio=(0.9, 1.1))], p=prob),
            v2.Resize([img_size, img_size]),
            v2.RandomHorizontalFlip(),
            *_to_tensor(),
        ]
    )


def test_transform(img_size, resize="stretch"):
    """Make square, in one of the ways of `core.images.squared`; scale to [-1, 1]."""
    return v2.Compose([partial(squared, size=img_size, resize=resize), *_to_tensor()])


def _to_tensor():
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]


def get_train_loader(
    root,
    which="source",
    img_size=256,
    batch_size=8,
    prob=0.5,
    num_workers=4,
    seed=777,
    start=0,
    stop=None,
    pin_memory=False,
    leave_out=(),
):
    """Balanced batches for the iterations start ... stop - 1 (by default as many as make one epoch).

    which: "source" gives (x (N, 3, H, W), y (N,)), "reference" gives (x, x2, y). pin_memory: for copies to
    a CUDA device that do not wait. leave_out: paths that do not count.
    """
    transform = train_transform(img_size, prob)
    kind = {"source": DomainFolder, "reference": ReferenceDataset}[which]
    dataset = kind(root, transform, 2 * img_size, leave_out)  # twice: a crop of it is still reduced
    if stop is None:
        stop = start + max(1, len(dataset) // batch_size)
    draws = BalancedDraws(dataset.targets, batch_size, (seed, which), start, stop)
    options = _loader_options(num_workers, pin_memory)
    return DataLoader(Drawn(dataset), batch_sampler=draws, **options)


def get_test_loader(root, img_size=256, batch_size=32, shuffle=True, num_workers=4, seed=777, leave_out=()):
    """Batches (x, y) of every image once, nothing dropped; shuffled in an order given by the seed."""
    dataset = DomainFolder(root, test_transform(img_size), leave_out=leave_out)
    order = random_generator(seed, "test order")
    return DataLoader(dataset, batch_size, shuffle=shuffle, generator=order, **_loader_options(num_workers))


def get_sample_loader(samples, transform, batch_size=8, num_workers=4):
    """Batches (x, y) of given (path, label), in their order."""
    return DataLoader(ImageList(samples, transform), batch_size, **_loader_options(num_workers))


def _loader_options(num_workers, pin_memory=False):
    num_workers = min(num_workers, usable_cores())  # more would only take turns (and PyTorch warns)
    start = leave_to_the_parent if num_workers else None
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        "worker_init_fn": start,
    }


class InputFetcher:
    """Endless inputs from loaders, on a device.

    mode "train": Munch(x_src, y_src, x_ref, x_ref2, y_ref, z_trg, z_trg2); "val": Munch(x_src, y_src,
    x_ref, y_ref); "test": Munch(x, y). Images are (N, 3, H, W), labels (N,), codes (N, latent_dim).
    The codes of an iteration depend on (seed, iteration); the first one is `start`. Of several processes each
    gets its share of the batch.
    """

    def __init__(self, loader, loader_ref=None, latent_dim=16, mode="train", seed=777, start=0, device="cpu"):
        self.batches = _endless(loader)
        self.batches_ref = _endless(loader if loader_ref is None else loader_ref)  # a pass of its own
        self.latent_dim, self.mode, self.seed = latent_dim, mode, seed
        self.iteration, self.device = start, device

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
        return Munch({name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()})


def _endless(loader):
    while True:
        batches = iter(loader)
        children_may_die()
        yield from batches
