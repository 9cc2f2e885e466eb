"""Benchmark of sampling: grid and video, fused against running the full generator for every frame.

python -m benchmarks.sample                                  3 sources, 6 references, 256 px, full width
python -m benchmarks.sample --sources 15 --references 28 --variants fused
python -m benchmarks.sample --variants plain fused "fused --precision bf16" --device cuda
"""

import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from munch import Munch
from PIL import Image

import main as program
from benchmarks import plain
from core.checkpoint import CheckpointIO
from core.checkpoint.steps import NETS_EMA
from core.cli.parser import Parser
from core.data_loader import get_sample_loader, test_transform
from core.images.io import to_uint8
from core.sampling import translate, video
from core.solver import Solver
from core.system import console
from core.system.device import describe_device
from core.system.memory import peak_memory

DOMAINS = 3
BATCH_SIZE = 8


def make_images(folder, count, size):
    """Write smooth random PNG images (size x size) into an existing folder and return their paths."""
    generator = np.random.default_rng(count)
    paths = [folder / f"{number:04d}.png" for number in range(count)]
    for path in paths:
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(path)
    return paths


def make_solver(options, variant, folder):
    """Create a Solver with random weights, saved as step 1, which `Solver.sample` loads."""
    width = ["--channel_base", options.channel_base, "--img_size", options.img_size]
    line = ["--device", options.device, "--num_domains", DOMAINS, "--w_hpf", 0, *width, *variant.split()[1:]]
    line += ["--resume_iter", 1, "--checkpoint_dir", folder, "--result_dir", folder / "results"]
    solver = Solver(program.parse_args(["--mode", "sample", *map(str, line)]))
    CheckpointIO(folder, NETS_EMA, **solver.nets_ema).save(1)
    return solver


@torch.no_grad()
def sample_plainly(solver, folder, loaders):
    """Create grid and video with a full pass of G for all sources in each frame, like the original code."""
    nets, to_device = solver.nets_ema, partial(torch.Tensor.to, device=solver.device)
    x_src = to_device(torch.cat([x for x, _ in loaders.src]))
    references = translate.reference_styles(nets.style_encoder, loaders.ref, to_device)
    sources = translate.Sources(content=None, shown=to_uint8(x_src))

    def row(s_trg):
        return to_uint8(nets.generator(x_src, s_trg.expand(len(x_src), -1)))

    translate.style_grid(sources, references, map(row, references.codes)).save(folder / "reference.jpg")
    pairs = video.style_pairs(references.labels)
    steps = [*video.ALPHAS, *[1.0] * (video.HOLD - 1)]
    styles = [torch.lerp(references.codes[i], references.codes[j], alpha) for i, j in pairs for alpha in steps]
    styles += [styles[-1]] * video.HOLD
    above = np.concatenate(list(sources.shown), axis=1)
    window = np.zeros((2 * len(above), len(above) + video.GAP, 3), np.uint8)
    frames = (np.concatenate([window, np.concatenate([above, np.concatenate(list(row(s)), 1)])], 1) for s in styles)
    video.write_video(folder / "video_ref.mp4", frames)


def run(options, variant, folder, samples):
    """Return the seconds of a variant, from input images to output files, and its peak memory in bytes."""
    solver, transform = make_solver(options, variant, folder), test_transform(options.img_size)
    loaders = Munch({name: get_sample_loader(s, transform, BATCH_SIZE, num_workers=0) for name, s in samples.items()})
    sample, arithmetic = solver.sample, nullcontext()
    if variant.startswith("plain"):
        solver.load(1)
        sample, arithmetic = partial(sample_plainly, solver, folder / "results"), plain.plain_arithmetic()
    peak_memory(solver.device, reset=True)
    began = time.perf_counter()
    with arithmetic:
        sample(loaders)
    return time.perf_counter() - began, peak_memory(solver.device)


def main():
    """Run the variants in turn. Print the best time of each, peak memory and speed-up over the first."""
    parser = Parser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of the networks")
    parser.add_argument("--img_size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--channel_base", type=int, default=2**14, help="width of the networks")
    parser.add_argument("--sources", type=int, default=3, help="number of source images")
    parser.add_argument("--references", type=int, default=6, help="number of reference images, in three domains")
    parser.add_argument("--runs", type=int, default=1, help="measured runs per variant")
    parser.add_argument("--variants", nargs="+", default=["plain", "fused", "fused --precision bf16"])
    options = parser.parse_args()
    console.info = lambda text="": None  # print the table only
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_images(folder, options.sources + options.references, options.img_size)
        sources, references = paths[: options.sources], paths[options.sources :]
        labels = sorted(number % DOMAINS for number in range(len(references)))
        samples = {"src": [(path, 0) for path in sources], "ref": list(zip(references, labels, strict=True))}
        frames = video.frame_count(video.style_pairs(labels))
        where = describe_device(torch.device(options.device))
        print(f"{where}, torch {torch.__version__}, {options.img_size} px, {options.sources} sources, ", end="")
        print(f"{options.references} references: grid and video of {frames} frames, best of {options.runs}")
        print(f"{'variant':<32}{'seconds':>9}{'GB':>7}{'times':>7}")
        few = {"src": samples["src"][:1], "ref": samples["ref"][:2]}
        for variant in options.variants:
            run(options, variant, folder, few)  # Warm-up: PyTorch chooses kernels and loads libraries.
        results = {variant: [] for variant in options.variants}
        for _ in range(options.runs):
            for variant in options.variants:
                results[variant].append(run(options, variant, folder, samples))
        baseline = min(results[options.variants[0]])[0]
        for variant, pairs in results.items():
            seconds, peak = min(pairs)[0], max(peak for _, peak in pairs)
            print(f"{variant:<32}{seconds:>9.1f}{peak / 1e9:>7.2f}{baseline / seconds:>7.2f}")


if __name__ == "__main__":
    main()
