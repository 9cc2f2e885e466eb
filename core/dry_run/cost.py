"""Estimates of FLOPs and memory before a run, from PyTorch's fake tensors.

A fake tensor has a shape, a type and a device but no data. The Solver and the other functions of a real run therefore
take seconds, at any size, on any machine. The Counter tracks each tensor until it is freed to find the peak of memory.
"""

import weakref
from contextlib import contextmanager
from functools import partial

import torch
import torchvision
from munch import Munch

# These are private modules: PyTorch has no public interface to observe every operation and its results.
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from core.evaluation.source_batch import translate_and_measure, translate_back
from core.model import Content, build_model
from core.sampling import translate, video
from core.solver import Solver
from core.system.device import select_device
from metrics import fid, lpips
from metrics.sets import MOST_KEPT

CANVAS = 4 + 2  # bytes per pixel of a grid: Pillow's image and its JPEG encoder
FRAMES_KEPT = 16  # video frames that the encoder holds in memory
LPIPS_CHANNELS = (64, 192, 384, 256, 256)  # channels of the AlexNet layers in LPIPS
MOMENTS = 6  # matrices of the size of a covariance, while distances are computed
SCRATCH = 1.1  # factor for temporary memory of kernels, as measured (benchmarks/README.md)


class Counter(TorchDispatchMode):
    """Counter of FLOPs (multiply-add: 2; second order included) and of bytes of tensors: `held` now, `peak` so far."""

    def __init__(self):
        super().__init__()
        self.flops = self.held = self.peak = 0
        self.live = set()  # ids of storages in use

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        storages = [leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        for storage in storages:
            key, size = id(storage), storage.nbytes()
            if key not in self.live:
                self.live.add(key)
                self.held += size
                self.peak = max(self.peak, self.held)
                weakref.finalize(storage, self._forget, key, size)
        return out

    def _forget(self, key, size):
        self.live.discard(key)
        self.held -= size


class Cost(Munch):
    """flops: total. peak: maximum of bytes. held: bytes of networks, averages and optimizers (only for training)."""


@contextmanager
def counted(device, *networks):
    """Yield a Counter. Tensors are fake within the context, and the networks move from "meta" to the device."""
    with FakeTensorMode(allow_non_fake_inputs=True), Counter() as counter:
        for network in set(networks):  # fan is among nets and nets_ema
            network.to_empty(device=device)
        counter.peak = counter.held
        yield counter


@contextmanager
def fake_solver(config, *others):
    """Yield (Solver, Counter) in the context of `counted`. others: further networks, built on "meta"."""
    with torch.device("meta"):
        # Compiling and recording need real tensors. The copies for --init_iters are not counted.
        solver = Solver(config.with_flags(compile=False, cuda_graph=False, init_iters=0), on_meta=True)
    modules = *solver.nets.values(), *solver.nets_ema.values(), solver.augmentation, *others
    with counted(solver.device, *modules) as counter:
        for name, optimizer in solver.optims.items():
            optimizer.param_groups[0]["params"] = list(solver.nets[name].parameters())
        yield solver, counter


def networks(config):
    """Return the networks of a mode on "meta": {name: module}."""
    with torch.device("meta"):
        nets, nets_ema = build_model(config)
    return nets if config.mode == "train" else nets_ema


def saved_bytes(config):
    """Return the total size of the files of one checkpoint, in bytes."""
    sizes = {name: sum(p.nbytes for p in network.parameters()) for name, network in networks(config).items()}
    copies = {"fan": 2, "discriminator": 3}  # weights, average, two moments: fan has no moments, D no average
    return sum(copies.get(name, 4) * size for name, size in sizes.items())


def training(config, count):
    """Return the Cost of the second iteration of `count` images; the first creates the moments of the optimizers."""
    with fake_solver(config) as (solver, counter):
        device = solver.device
        images = {name: _images(config, count, device) for name in ("x_src", "x_ref", "x_ref2")}
        codes = {name: torch.empty(count, config.latent_dim, device=device) for name in ("z_trg", "z_trg2")}
        labels = {name: torch.zeros(count, dtype=torch.int64, device=device) for name in ("y_src", "y_ref")}
        inputs = Munch(**images, **codes, **labels)
        solver.train_step(inputs, 0)
        held = counter.held
        counter.flops, counter.peak = 0, held
        solver.train_step(inputs, 1)
        return Cost(flops=counter.flops, held=held, peak=counter.peak)


def snapshot(config):
    """Return the Cost of a snapshot: encoding its sources, rendering one row, and its largest grid."""
    sources, size = config.val_batch_size, config.img_size
    cells = max((1 + sources) ** 2, (1 + config.num_outs_per_domain * min(config.num_domains, 5)) * sources)
    return _translation(config, sources, cells * size**2 * CANVAS)


def sampling(config, sources, styles):
    """Return the Cost of translating sources into one style, with the largest output. styles: most of any kind."""
    size = config.img_size
    grid = (1 + sources) * (1 + styles) * size**2
    frames = FRAMES_KEPT * 2 * size * (size + video.GAP + sources * size)
    pixels = {"video_ref": frames, "video_latent": frames, "images": 0}
    return _translation(config, sources, CANVAS * max(pixels.get(output, grid) for output in config.outputs))


def _translation(config, sources, canvas):
    """Return the Cost of encoding sources and translating them into one style. canvas: bytes of grids and frames."""
    with fake_solver(config) as (solver, counter), torch.no_grad(), solver.autocast():
        held = counter.held
        content = Content.of(solver.nets_ema, _images(config, sources, solver.device), solver.inference_batch)
        s_trg = torch.empty(1, config.style_dim, device=solver.device)
        translate.render(solver.nets_ema.generator, content, s_trg, solver.inference_batch, convert=torch.numel)
        return Cost(flops=counter.flops, held=held, peak=counter.peak + canvas)


def evaluation(config, sources, real, most):
    """Return the Cost of one scored output per source, with its part of what is computed once per source.

    real: numbers of training images, one per domain. most: largest number of sources of a task.
    """
    with torch.device("meta"):
        inception = fid.Inception(fid.build_inception().eval())
        alexnet, linear = torchvision.models.alexnet(), [torch.empty(channels) for channels in LPIPS_CHANNELS]
        distance = lpips.LPIPS(alexnet, linear)
    with fake_solver(config, inception, distance) as (solver, counter), torch.no_grad(), solver.autocast():
        batch, nets, x_src = solver.inference_batch, solver.nets_ema, _images(config, sources, solver.device)
        content, e_src = Content.of(nets, x_src, batch), torch.cat(batch.run(distance, x_src))
        codes, luma = torch.empty(sources, config.style_dim, device=solver.device), x_src[:, 0]
        networks = {"generator": nets.generator, "inception": inception, "lpips_network": distance}
        measure = partial(translate_and_measure, prepare=_prepare, **networks)
        pairs = lpips.PairwiseMean()
        for _ in range(2):  # the first pass creates the means
            before = counter.flops
            x_fake, _, embeddings, *_ = zip(*batch.run(measure, content, codes, e_src, luma), strict=True)
            pairs.add(torch.cat(embeddings))
        each = counter.flops - before
        batch.run(partial(translate_back, nets=nets, lpips_network=distance), torch.cat(x_fake), codes, e_src)
        once = counter.flops - 2 * each
        # Features of real images, beside a copy for the classifier or the outputs of a task; a covariance and its root
        # per domain.
        real_images = sum(min(count, MOST_KEPT) for count in real)
        images = real_images + max(real_images, min(most * config.num_outs_per_domain, MOST_KEPT))
        features, matrices = images * fid.FEATURES * 4, (MOMENTS + 2 * len(real)) * fid.FEATURES**2 * 8
        return Cost(flops=each + once // config.num_outs_per_domain, peak=counter.peak + features + matrices)


def _prepare(x_fake, luma_src):
    """Replace `Evaluation._prepare`, which needs real data for Pillow, and return tensors of the same shapes."""
    x_inception = torch.empty(len(x_fake), 3, fid.INPUT_SIZE, fid.INPUT_SIZE, device=x_fake.device)
    return None, x_inception, torch.empty(len(x_fake), device=x_fake.device)


def alignment(config):
    """Return the Cost of finding the landmarks of a batch of faces; FLOPs are per face."""
    from core.sampling.align import AT_ONCE
    from core.wing import FAN

    device = select_device(config.device)
    with torch.device("meta"):
        fan = FAN()
    with counted(device, fan) as counter:
        fan.get_heatmap(_images(config, AT_ONCE, device), b_preprocess=False)
        return Cost(flops=counter.flops // AT_ONCE, peak=counter.peak)


def _images(config, count, device):
    return torch.empty(count, 3, config.img_size, config.img_size, device=device)
