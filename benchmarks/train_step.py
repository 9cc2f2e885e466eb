"""Benchmark of a training iteration: FLOPs, seconds and memory of plain and fused variants, in turn in one run.

python -m benchmarks.train_step                      256 px, batch 2, on the CPU of this machine
python -m benchmarks.train_step --variants fused "fused --compile"
python -m benchmarks.train_step --loader data/afhq/train
"""

import gc
import statistics
import time

import torch
from munch import Munch

import main as program
from benchmarks import plain
from core.cli.parser import Parser
from core.data_loader import get_train_loader
from core.dry_run.cost import Counter
from core.solver import Solver
from core.system.device import describe_device
from core.system.memory import peak_memory

VARIANTS = "plain", "fused", "fused --precision bf16"


def make_solver(options, variant):
    """Create a Solver with random weights for training. variant: a word, then flags of main.py."""
    flags = variant.split()[1:]
    size = ["--img_size", options.img_size, "--channel_base", options.channel_base, "--batch_size", options.batch_size]
    fixed = ["--mode", "train", "--num_domains", 3, "--w_hpf", 0, "--device", options.device]
    line = map(str, [*fixed, *size, "--micro_batch", options.micro_batch, *flags])
    return Solver(program.parse_args(list(line)))


def make_inputs(args, device):
    """Create random inputs as from InputFetcher: images (N, 3, H, W) in [-1, 1], codes (N, latent_dim), labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    n, size = args.batch_size, args.img_size
    images = {name: torch.rand(n, 3, size, size, generator=generator) * 2 - 1 for name in ("x_src", "x_ref", "x_ref2")}
    codes = {name: torch.randn(n, args.latent_dim, generator=generator) for name in ("z_trg", "z_trg2")}
    labels = {name: torch.randint(3, (n,), generator=generator) for name in ("y_src", "y_ref")}
    return Munch({name: tensor.to(device) for name, tensor in {**images, **codes, **labels}.items()})


def step(solver, variant, inputs, iteration):
    """Run one iteration of a variant and wait until the device has finished it."""
    if variant.startswith("plain"):
        with plain.plain_arithmetic():
            plain.train_step(solver, inputs, iteration)
    else:
        solver.train_step(inputs, iteration)
    if solver.device.type == "cuda":
        torch.cuda.synchronize()


def count_flops(options, variant):
    """Return the FLOPs of an iteration per image."""
    solver = make_solver(options, variant.split()[0])
    inputs = make_inputs(solver.config, solver.device)
    with Counter() as counter:
        step(solver, variant.split()[0], inputs, 0)
    return counter.flops / options.batch_size


def measure(options, variants):
    """Run the variants in turn, `runs` times after a warm-up -> {variant: (seconds of each run, peak bytes)}."""
    seconds, peaks = {variant: [] for variant in variants}, dict.fromkeys(variants, 0)
    for number in range(options.runs + 1):
        for variant in variants:
            solver = make_solver(options, variant)
            inputs = make_inputs(solver.config, solver.device)
            if number == 0 or "--compile" in variant or solver.device.type == "cuda":
                step(solver, variant, inputs, 0)  # Warm-up chooses and compiles kernels, and maps memory.
            peak_memory(solver.device, reset=True)
            began = time.perf_counter()
            for iteration in range(options.iterations):
                step(solver, variant, inputs, iteration)
            if number:
                seconds[variant].append((time.perf_counter() - began) / options.iterations)
                peaks[variant] = max(peaks[variant], peak_memory(solver.device))
            del solver, inputs
            gc.collect()
    return {variant: (seconds[variant], peaks[variant]) for variant in variants}


def report_steps(options):
    """Print FLOPs, seconds, peak memory, and speed-up over the first variant."""
    device = torch.device(options.device)
    variants = options.variants
    print(f"{describe_device(device)}, torch {torch.__version__}, {options.img_size} px, ", end="")
    print(f"batch {options.batch_size}, micro_batch {options.micro_batch}, median of {options.runs}")
    flops = {form: count_flops(options, form) for form in dict.fromkeys(v.split()[0] for v in variants)}
    found = measure(options, variants)
    first = statistics.median(found[variants[0]][0])
    print(f"{'variant':<48}{'GFLOP/img':>10}{'s/img':>9}{'s/it':>9}{'it/s':>8}{'TFLOP/s':>9}{'GB':>7}{'times':>7}")
    for variant, (seconds, peak) in found.items():
        median = statistics.median(seconds)
        work = flops[variant.split()[0]]
        print(
            f"{variant:<48}{work / 1e9:>10.0f}{median / options.batch_size:>9.3f}{median:>9.3f}{1 / median:>8.2f}"
            f"{work * options.batch_size / median / 1e12:>9.2f}{peak / 1e9:>7.2f}{first / median:>7.2f}"
        )


def report_loader(options):
    """Print the images per second read from the folder options.loader for each number of workers."""
    print(f"{'workers':>8}{'images/s':>10}   (source and two references per sample, {options.img_size} px)")
    for workers in options.workers:
        loader = get_train_loader(options.loader, "reference", options.img_size, 8, num_workers=workers, stop=60)
        batches = iter(loader)
        for _ in range(10):
            next(batches)
        began = time.perf_counter()
        count = sum(2 * len(y) for _, _, y in batches)
        print(f"{workers:>8}{count / (time.perf_counter() - began):>10.1f}")


def main():
    """Benchmark iterations or, with --loader, reading images."""
    parser = Parser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of the networks")
    parser.add_argument("--img_size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--channel_base", type=int, default=2**14, help="width of the networks")
    parser.add_argument("--batch_size", type=int, default=2, help="images per iteration")
    parser.add_argument("--micro_batch", default="auto", help="images in memory at once, or auto")
    parser.add_argument("--runs", type=int, default=3, help="measured runs per variant")
    parser.add_argument("--iterations", type=int, default=1, help="iterations per run")
    parser.add_argument(
        "--variants", nargs="+", default=VARIANTS, help='variants like "plain" "fused --precision bf16"'
    )
    parser.add_argument("--loader", help="folder of domains, to measure reading instead")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of loader processes")
    options = parser.parse_args()
    report_loader(options) if options.loader else report_steps(options)


if __name__ == "__main__":
    main()
