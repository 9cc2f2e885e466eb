"""What work costs, before it is done: FLOPs and memory, counted while it runs on tensors that hold no numbers.

A Solver is built whose tensors have shapes, types and a device but no memory (PyTorch's fake tensors), and does what
it would do. Each tensor that PyTorch makes is noted until it goes, so the most that is held at once is known within
seconds, at any size, on any machine.
"""

import argparse
import weakref
from contextlib import contextmanager

import torch
import torchvision
from munch import Munch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from core.evaluation.features import MOST_KEPT
from core.model import Content, build_model
from core.sampling import video
from core.solver import Solver
from core.system.device import select_device
from core.system.memory import chunks, images_at_once
from metrics import fid, lpips

CANVAS = 4 + 2  # bytes of a pixel of a grid: as Pillow holds it, and what its JPEG encoder asks for
FRAMES_KEPT = 16  # of a video, by its encoder
ALEXNET = (64, 192, 384, 256, 256)  # channels of the layers that LPIPS compares
MOMENTS = 6  # matrices as large as a covariance of features, while distances are computed
SCRATCH = 1.1  # what kernels ask for besides, by what was measured (benchmarks/README.md)


class Counter(TorchDispatchMode):
    """Counts FLOPs, a multiply-add as two, second order included, and bytes of tensors: `held` now, `peak` at most."""

    def __init__(self):
        super().__init__()
        self.flops = self.held = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self.known.discard(key)
        self.held -= size


class Cost(Munch):
    """flops: of all. held: bytes that stay: networks, averages, optimizers. peak: most bytes at once."""


@contextmanager
def rehearsed(args):
    """Yield (Solver, Counter); within the context its work costs nothing, and results hold no numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

    device = select_device(args.device)
    changed = {"device": "meta", "compile": False, "precision": "fp32", "inherited": None}
    plain = argparse.Namespace(**vars(args) | changed)
    with torch.device("meta"):
        solver = Solver(plain)
    solver.args, solver.device = args, device
    if args.micro_batch == "auto":
        solver.drawing.size = images_at_once(device, args.img_size, args.batch_size)
    with FakeTensorMode(), Counter() as counter:
        for network in {*solver.nets.values(), *solver.nets_ema.values()}:
            _imagine(network, device)
        for name, optimizer in solver.optims.items():
            optimizer.param_groups[0]["params"] = list(solver.nets[name].parameters())
        yield solver, counter


def _imagine(network, device):
    """Give a network on the meta device tensors that claim to be on the device."""
    for module in network.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype, device=device)
                module._parameters[name] = nn.Parameter(new, old.requires_grad)
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype, device=device)


def networks(args):
    """The networks of a mode, without memory: {name: module}."""
    with torch.device("meta"):
        nets, nets_ema = build_model(args)
    return nets if args.mode == "train" else nets_ema


def saved_bytes(args):
    """How large the files of one step of a training are together."""
    sizes = {name: sum(p.nbytes for p in network.parameters()) for name, network in networks(args).items()}
    moments = 2 * sum(size for name, size in sizes.items() if name != "fan")
    averages = sum(size for name, size in sizes.items() if name != "discriminator")
    return sum(sizes.values()) + averages + moments


def training(args, count):
    """The Cost of an iteration of `count` images, the second one: the first makes the optimizers' moments."""
    with rehearsed(args) as (solver, counter):
        inputs = _inputs(args, count, solver.device)
        solver.train_step(inputs, 0)
        held, counter.flops, counter.peak = counter.held, 0, counter.held
        solver.train_step(inputs, 1)
        return Cost(flops=counter.flops, held=held, peak=counter.peak)


def snapshot(args):
    """The Cost of a snapshot: its sources, one row of it, and its largest grid."""
    sources, size = args.val_batch_size, args.img_size
    cells = max((1 + sources) ** 2, (1 + args.num_outs_per_domain * min(args.num_domains, 5)) * sources)
    return _drawing(args, sources, cells * size**2 * CANVAS)


def sampling(args, sources, styles):
    """The Cost of translating so many sources, a group, into one style, and of the largest picture of args.outputs.

    styles: how many there are at most of one kind.
    """
    size = args.img_size
    grid = (1 + sources) * (1 + styles) * size**2
    frame = 2 * size * (size + video.GAP + sources * size)
    pixels = {"video_ref": frame * FRAMES_KEPT, "video_latent": frame * FRAMES_KEPT, "images": 0}
    return _drawing(args, sources, CANVAS * max(pixels.get(output, grid) for output in args.outputs))


def _drawing(args, sources, host):
    """The Cost of reading sources and translating them into one style. host: bytes of pictures besides."""
    with rehearsed(args) as (solver, counter), solver._arithmetic(), torch.no_grad():
        held, nets, size = counter.held, solver.nets_ema, solver.drawing.size
        content = Content.of(nets, _images(args, sources, solver.device), size)
        s_trg = torch.empty(1, args.style_dim, device=solver.device)
        for part in chunks(sources, size):
            nets.generator.render(content[part], s_trg)
        return Cost(flops=counter.flops, held=held, peak=counter.peak + host)


def evaluation(args, sources, most):
    """The Cost of one output of each of so many sources, with its scores.

    most: sources of a task; their outputs' features are kept.
    """
    with torch.device("meta"):
        inception = fid.Inception(fid.build_inception().eval())
        weights = [torch.empty(1, channels, 1, 1) for channels in ALEXNET]
        distance = lpips.LPIPS(torchvision.models.alexnet(), weights)
    with rehearsed(args) as (solver, counter), torch.no_grad():
        held, nets, size = counter.held, solver.nets_ema, solver.drawing.size
        for network in (inception, distance):
            _imagine(network, solver.device)
        content = Content.of(nets, _images(args, sources, solver.device), size)
        s_trg = torch.empty(sources, args.style_dim, device=solver.device)
        pairs = lpips.PairwiseMean()
        for _ in range(2):  # the first one makes the means
            counter.flops, embeddings = 0, []
            for part in chunks(sources, size):
                with solver._arithmetic():
                    x_fake = nets.generator.render(content[part], s_trg[part]).float()
                embeddings.append(distance(x_fake))
                inception(torch.empty(len(x_fake), 3, fid.INPUT_SIZE, fid.INPUT_SIZE, device=solver.device))
            pairs.add(torch.cat(embeddings))
        kept = 2 * min(most * args.num_outs_per_domain, MOST_KEPT) * fid.FEATURES * 4
        return Cost(flops=counter.flops, held=held, peak=counter.peak + kept + MOMENTS * fid.FEATURES**2 * 8)


def alignment(args):
    """The Cost of finding the landmarks of a batch of faces; FLOPs of one."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from core.sampling.align import AT_ONCE
    from core.wing import FAN

    device = select_device(args.device)
    with torch.device("meta"):
        fan = FAN()
    with FakeTensorMode(), Counter() as counter:
        _imagine(fan, device)
        held = counter.held
        fan.get_heatmap(_images(args, AT_ONCE, device), b_preprocess=False)
        return Cost(flops=counter.flops // AT_ONCE, held=held, peak=counter.peak)


def _inputs(args, count, device):
    codes = torch.empty(2, count, args.latent_dim, device=device)
    labels = torch.zeros(2, count, dtype=torch.int64, device=device)
    named = {"y_src": labels[0], "y_ref": labels[1], "z_trg": codes[0], "z_trg2": codes[1]}
    return Munch({name: _images(args, count, device) for name in ("x_src", "x_ref", "x_ref2")}, **named)


def _images(args, count, device):
    return torch.empty(count, 3, args.img_size, args.img_size, device=device)
