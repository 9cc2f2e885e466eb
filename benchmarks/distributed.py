"""Benchmark of several processes: seconds and bytes per iteration with two ways to average gradients.

python -m benchmarks.distributed                       1, 2 and 4 processes on the CPU of this machine
python -m benchmarks.distributed --link 0.25           with a simulated network of 0.25 GB/s
The benchmark starts the processes itself, all on this machine.
"""

import statistics
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock
from uuid import uuid4

import torch
from munch import Munch
from torch import distributed as dist
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.parallel import DistributedDataParallel

import main as program
from benchmarks.train_step import make_inputs, step
from core.cli.parser import Parser
from core.solver import Solver
from core.system import distributed
from core.training.iteration import UPDATES

VARIANTS = ("flat", "DDP")  # one all_reduce_mean after backward; DistributedDataParallel


class Link:
    """dist.all_reduce over a simulated network of `speed` bytes per second."""

    def __init__(self, speed):
        self.speed, self.all_reduce = speed, dist.all_reduce

    def __call__(self, tensor, *args):
        """Reduce in place and wait as long as the link would need for the data of each process in a ring."""
        count = distributed.world_size()
        arrival = time.monotonic() + tensor.nbytes * 2 * (count - 1) / count / self.speed
        self.all_reduce(tensor, *args)
        time.sleep(max(0.0, arrival - time.monotonic()))


class Objective(nn.Module):
    """A loss as forward pass of the trained networks, for DistributedDataParallel."""

    def __init__(self, learners):
        super().__init__()
        self.learners = nn.ModuleList(learners)

    def forward(self, loss_fn, batch):
        """loss_fn(batch): (loss, terms, meters), as for `Iteration.update`."""
        return loss_fn(batch)


def update_by_ddp(solver, wrapped, name, loss_fn, batch, is_slow):
    """Run Iteration.update with DistributedDataParallel. wrapped: {learners: wrapped Objective}, filled here."""
    learners = UPDATES[name]
    for network_name, network in solver.nets.items():
        network.requires_grad_(network_name in learners)
    key = tuple(learners)
    if key not in wrapped:
        wrapped[key] = DistributedDataParallel(Objective([solver.nets[learner] for learner in learners]))
    for learner in learners:
        solver.optims[learner].zero_grad()
    loss, terms, _ = wrapped[key](loss_fn, batch)
    loss.backward()
    distributed.all_reduce_mean(list(terms.values()))
    solver.iteration._step(name, [p.grad for p in wrapped[key].parameters()], list(terms.values()), is_slow)
    return {name + term: value for term, value in terms.items()}


def measure(options):
    """Return ({variant: (seconds of each iteration, bytes of an iteration)}, bytes of gradients) in each process."""
    torch.set_num_threads(options.threads)
    line = f"--mode train --num_domains 3 --w_hpf 0 --device {options.device} --img_size {options.img_size} "
    line += f"--channel_base {options.channel_base} --batch_size {options.batch_size}"
    results = {}
    with ExitStack() as patches:
        patches.enter_context(distributed.process_group())
        if options.link and distributed.world_size() > 1:
            patches.enter_context(mock.patch.object(dist, "all_reduce", Link(options.link * 1e9)))
        for name in options.variants if distributed.world_size() > 1 else options.variants[:1]:
            solver = Solver(program.parse_args(line.split()))
            whole = make_inputs(solver.config, solver.device)
            inputs = Munch({key: tensor[distributed.shard(options.batch_size)] for key, tensor in whole.items()})
            seconds = []
            if name == "DDP":
                solver.iteration.update = partial(update_by_ddp, solver, {})
            for iteration in range(2):  # Warm-up: PyTorch chooses kernels, DDP chooses buckets.
                step(solver, name, inputs, iteration)
            before = traffic()
            for iteration in range(options.iterations):
                distributed.all_reduce_max(0)
                began = time.perf_counter()
                step(solver, name, inputs, iteration)
                seconds.append(time.perf_counter() - began)
            distributed.all_reduce_max(0)
            results[name] = seconds, (traffic() - before) / options.iterations
    return results, gradient_bytes(solver)


def gradient_bytes(solver):
    """Return the bytes of gradients per iteration. Its four updates use D and G twice, F and E once."""
    size = {name: sum(p.nbytes for p in net.parameters()) for name, net in solver.nets.items()}
    return 2 * size["discriminator"] + 2 * size["generator"] + size["mapping_network"] + size["style_encoder"]


def traffic():
    """Return the bytes sent over the loopback network so far, or NaN if the system has no counter."""
    try:
        (line,) = (text for text in Path("/proc/net/dev").read_text().splitlines() if text.strip().startswith("lo:"))
    except OSError:
        return float("nan")
    return int(line.split()[9])


def launch(options, world):
    """Run `measure` in `world` processes -> result of rank 0. Raises ChildFailedError if one fails."""
    config = LaunchConfig(
        1, 1, world, run_id=uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="spawn"
    )
    return elastic_launch(config, measure)(options)[0]


def main():
    """Print seconds and MB per iteration for each number of processes and each way to average gradients."""
    parser = Parser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of the networks")
    parser.add_argument("--img_size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--channel_base", type=int, default=2**12, help="width of the networks")
    parser.add_argument("--batch_size", type=int, default=8, help="images per iteration in all processes together")
    parser.add_argument("--iterations", type=int, default=5, help="measured iterations")
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="ways to average")
    parser.add_argument("--link", type=float, help="speed of a simulated network in GB/s (not for DDP)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.device}, {options.img_size} px, batch {options.batch_size}", end=", ")
    print(f"{options.threads} threads each" + (f", link of {options.link:g} GB/s" if options.link else ""))
    print(f"{'processes':>9} {'gradients':<16}{'s/it':>8}{'best':>8}{'MB/it sent':>12}{'minimum':>8}{'ratio':>7}")
    for world in options.ranks:
        results, size = launch(options, world)
        least = 2 * (world - 1) * size  # all processes together, in a ring
        for name, (seconds, sent) in results.items():
            ratio = f"{sent / least:>7.3f}" if least else ""
            median = statistics.median(seconds)
            print(
                f"{world:>9} {name:<16}{median:>8.3f}{min(seconds):>8.3f}{sent / 1e6:>12.1f}{least / 1e6:>8.1f}{ratio}"
            )


if __name__ == "__main__":
    main()
