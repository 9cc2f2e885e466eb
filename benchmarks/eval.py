"""Benchmark of evaluation against the procedure of the original code, in one run, on a generated data set.

python -m benchmarks.eval                      3 domains, 6 validation and 60 training images each, 64 px
python -m benchmarks.eval --img_size 256 --channel_base 16384

The networks of the metrics have random weights, which cost the same as the published weights and need no download.
The procedure of the original code runs the full generator for every output, runs AlexNet twice for each of the 45
pairs of outputs of a source, and runs Inception on all real images for every task.
"""

import os
import tempfile
import time
from collections import Counter
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.models import AlexNet_Weights, Inception_V3_Weights

import main as program
from benchmarks import plain
from core.cli.parser import Parser
from core.data_loader import test_transform
from core.evaluation.scores import MODES
from core.images.io import read_rgb, to_uint8
from core.solver import Solver
from core.system import console
from data import demo
from metrics import fid, lpips
from metrics.pairs import pair_scores
from metrics.stats import frechet_distance
from metrics.weights import load_pretrained, weights_path


def fill_cache(folder):
    """Save random weights under the names that torchvision expects, and set TORCH_HOME to the folder."""
    os.environ["TORCH_HOME"] = str(folder)
    networks = {AlexNet_Weights.IMAGENET1K_V1: torchvision.models.alexnet(),
                Inception_V3_Weights.IMAGENET1K_V1: fid.build_inception()}  # fmt: skip
    for weights, network in networks.items():
        weights_path(weights).parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), weights_path(weights))


def count_images(counts, **networks):
    """Count the images that pass through each network. counts: a Counter, updated from now on."""
    for name, network in networks.items():
        network.register_forward_hook(lambda module, args, out, name=name: counts.update({name: len(args[0])}))


@torch.no_grad()
def evaluate_plainly(nets, evaluation, inception):
    """Evaluate both modes like the original code. inception: (N, 3, 299, 299) -> (N, 2048)."""
    for mode in MODES:
        for src, trg in permutations(evaluation.domains, 2):
            task_plainly(nets, evaluation, inception, mode, src, trg)


def task_plainly(nets, evaluation, inception, mode, src, trg):
    """Evaluate one task like the original code -> (FID, LPIPS)."""
    label, img_size = evaluation.domains.index(trg), evaluation.img_size
    latent_dim = nets.mapping_network.shared[0].in_features
    distances, folder = [], evaluation.eval_dir / f"plain_{src}2{trg}"
    folder.mkdir(parents=True, exist_ok=True)
    transform = test_transform(img_size)
    x_src, x_ref = (torch.stack([transform(read_rgb(p)) for p in evaluation.val[name]]) for name in (src, trg))
    for first in range(0, len(x_src), evaluation.batch_size):
        x = x_src[first : first + evaluation.batch_size]
        y = torch.full((len(x),), label)
        group = []
        for output in range(evaluation.outputs):
            if mode == "latent":
                s_trg = nets.mapping_network(torch.randn(len(x), latent_dim), y)
            else:
                s_trg = nets.style_encoder(x_ref[torch.randperm(len(x_ref))[: len(x)]], y)
            x_fake = nets.generator(x, s_trg)
            group.append(x_fake)
            for number, image in enumerate(to_uint8(x_fake)):
                Image.fromarray(image).save(folder / f"{first + number + 1:04d}_{output + 1:02d}.png")
        pairs = [lpips.calculate_lpips_given_images(pair) for pair in combinations(group, 2)]
        distances.append(np.mean(pairs))
    moments = []
    for paths in (evaluation.train[trg], sorted(folder.iterdir())):
        images = [fid.eval_transform(read_rgb(path), img_size) for path in paths]
        features = torch.cat([inception(torch.stack(images[i : i + 32])) for i in range(0, len(images), 32)])
        moments += [features.double().mean(0).numpy(), np.cov(features.double().numpy(), rowvar=False)]
    mu, cov, mu2, cov2 = moments
    return frechet_distance(mu, cov, mu2, cov2), np.mean(distances)


def seconds_of_pairs(count):
    """Return the seconds with one thread for KID, precision, recall, density and coverage of two sets of features."""
    real, fake = torch.randn(2, count, fid.FEATURES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    pair_scores(real, fake)
    torch.set_num_threads(threads)
    return time.perf_counter() - began


def main():
    """Evaluate once in each way, and print the seconds and the number of images through each network."""
    parser = Parser(description=__doc__)
    parser.add_argument("--img_size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--channel_base", type=int, default=512, help="width of the networks")
    parser.add_argument("--train", type=int, default=60, help="training images per domain")
    parser.add_argument("--val", type=int, default=6, help="validation images per domain")
    parser.add_argument("--outputs", type=int, default=10, help="outputs per source")
    parser.add_argument("--features", type=int, default=5000, help="features in each set for the scores of pairs")
    options = parser.parse_args()
    console.info = lambda text="": None  # print only the table
    console.warn = console.info
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill_cache(folder)
        demo.make(folder, size=options.img_size, train=options.train, val=options.val)
        flags = {"img_size": options.img_size, "channel_base": options.channel_base, "w_hpf": 0, "num_domains": 3,
                 "num_outs_per_domain": options.outputs, "num_workers": 0, "device": "cpu",
                 "train_img_dir": folder / "train", "val_img_dir": folder / "val", "eval_dir": folder / "eval",
                 "checkpoint_dir": folder / "checkpoints"}  # fmt: skip
        line = [str(text) for flag, value in flags.items() for text in (f"--{flag}", value)]
        solver = Solver(program.parse_args(["--mode", "eval", *line]))
        evaluation = solver.evaluation()
        counts, G = Counter(), solver.nets_ema.generator
        counted = {"alexnet": evaluation.lpips, "inception": evaluation.inception,
                   "encode": G.encode[0], "render": G.to_rgb}  # fmt: skip
        count_images(counts, **counted)
        inception = load_pretrained(fid.build_inception, fid.WEIGHTS)  # the unmodified network of torchvision
        inception.fc, inception.transform_input = torch.nn.Identity(), False
        count_images(counts, inception=inception)
        results = {}
        for variant in ("plain", "streaming"):
            counts.clear()
            began = time.perf_counter()
            if variant == "plain":
                with plain.plain_arithmetic():
                    evaluate_plainly(solver.nets_ema, evaluation, inception)
            else:
                solver.evaluate(step=0, evaluation=evaluation)
            results[variant] = (time.perf_counter() - began, dict(counts))
    print(f"{'':<12}{'seconds':>10}{'times':>10}" + "".join(f"{name:>10}" for name in counted) + "  (image counts)")
    for variant, (seconds, passed) in results.items():
        cells = "".join(f"{passed.get(name, 0):>10}" for name in counted)
        print(f"{variant:<12}{seconds:>10.1f}{results['plain'][0] / seconds:>10.2f}{cells}")
    seconds = seconds_of_pairs(options.features)
    print(
        f"KID, precision, recall, density, coverage; {options.features:,} features a set, one thread: {seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
