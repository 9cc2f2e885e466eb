"""Measure the quality of translations on the demo set with its known factors and no pretrained network.

python -m benchmarks.quality --checkpoint_dir expr/demo/checkpoints --data data/demo
python -m benchmarks.quality --checkpoint_dir expr/demo/checkpoints --data data/demo --steps all --curve curve.png

The benchmark trains a small network, the judge, to estimate domain and factors of real images, and reports its
accuracy. It translates every validation image into the other domains, with styles of random codes (latent) and of
validation images (reference). The judge then measures the accuracy of the domain, how well colours follow the
reference, and how well position and tilt follow the source. Diversity is the mean L1 distance between outputs of one
source in different styles, relative to that between real images of the domain. Cycle is the mean L1 distance, for
values in [-1, 1], between a source and its translation there and back.
"""

import json
from itertools import combinations
from pathlib import Path

import torch

from benchmarks.judge import correlation, look, read_faces, train_judge
from core.checkpoint.io import newest_step, saved_steps
from core.checkpoint.steps import NETS_EMA
from core.cli.args import parse_given
from core.cli.parser import Parser
from core.cli.resolve import loaded_config
from core.cli.values import SEEDS, word_or
from core.solver import Solver
from core.system.files import atomic_write
from data.demo_faces import DOMAINS

MODES = ("latent", "reference")
CONTENT, STYLE = ("x", "y", "size", "tilt"), ("fur", "eyes", "background")
OUTPUTS = 4  # styles of each source and domain
AT_ONCE = 16  # sources per batch
STEPS = word_or("newest", word_or("all", SEEDS))


def load_networks(checkpoint_dir, step, device="auto"):
    """Load the moving averages of a step -> Solver. Raises UserError if they are missing or damaged."""
    line = ["--mode", "sample", "--checkpoint_dir", checkpoint_dir, "--resume_iter", step, "--device", device]
    solver = Solver(loaded_config(parse_given([str(word) for word in line])))
    solver.load(step)
    return solver


@torch.no_grad()
def translate(solver, x_src, y_src, y_trg, codes, mode):
    """Translate N sources into K styles of domain y_trg each -> x_fake (N, K, 3, H, W), mean cycle distance.

    x_src (N, 3, H, W) in [-1, 1], y_src (N,), y_trg an integer. codes: (N, K, latent_dim) for the mode "latent", images
    (N, K, 3, H, W) for "reference".
    """
    nets, device = solver.nets_ema, solver.device
    style_network = {"latent": nets.mapping_network, "reference": nets.style_encoder}[mode]
    fakes, distances = [], []
    for n in range(0, len(x_src), AT_ONCE):
        x, y_org = x_src[n : n + AT_ONCE].to(device), y_src[n : n + AT_ONCE].to(device)
        content, s_org = nets.generator.content(x), nets.style_encoder(x, y_org)
        outputs = []
        for code in codes[n : n + AT_ONCE].unbind(1):
            s_trg = style_network(code.to(device), torch.full_like(y_org, y_trg))
            outputs.append(nets.generator.render(content, s_trg))
            distances.append((nets.generator(outputs[-1], s_org) - x).abs().mean((1, 2, 3)))
        fakes.append(torch.stack(outputs, dim=1).cpu())
    return torch.cat(fakes), torch.cat(distances).mean().item()


def measure(solver, judge, faces, mode, seed=0):
    """Return the measurements {name: number} of the judge for translations of faces = (x, y, factors)."""
    x, y, factors = faces
    generator = torch.Generator().manual_seed(seed)
    found, wanted, diversity, cycle = [], [], [], []
    for y_trg in range(len(DOMAINS)):
        sources, members = (y != y_trg).nonzero()[:, 0], (y == y_trg).nonzero()[:, 0]
        chosen = members[torch.randint(len(members), (len(sources), OUTPUTS), generator=generator)]
        latent = torch.randn(len(sources), OUTPUTS, solver.config.latent_dim, generator=generator)
        codes = latent if mode == "latent" else x[chosen]
        x_fake, distance = translate(solver, x[sources], y[sources], y_trg, codes, mode)
        seen, seen_factors = look(judge, x_fake.flatten(0, 1))
        found.append((seen == y_trg, seen_factors))
        wanted.append((factors[sources].repeat_interleave(OUTPUTS, 0), factors[chosen].flatten(0, 1)))
        pairs = [_distance(x_fake[:, i], x_fake[:, j]) for i, j in combinations(range(OUTPUTS), 2)]
        real = [_distance(x[members], x[members].roll(shift, 0)) for shift in range(1, OUTPUTS)]
        diversity.append(_mean(pairs) / _mean(real))
        cycle.append(distance)
    right, found = (torch.cat(column) for column in zip(*found, strict=True))
    of_source, of_reference = (torch.cat(column) for column in zip(*wanted, strict=True))
    follows = {name: correlation(found, of_source, name) for name in CONTENT}
    if mode == "reference":
        follows |= {name: correlation(found, of_reference, name) for name in STYLE}
    return {"domain": right.double().mean().item(), **follows, "diversity": _mean(diversity), "cycle": _mean(cycle)}


def first_of_each(faces, count):
    """Return the first `count` faces of each domain, or all if it is None."""
    y = faces[1]
    kept = torch.cat([(y == label).nonzero()[:count, 0] for label in range(len(DOMAINS))])
    return [column[kept] for column in faces]


def measure_judge(judge, faces):
    """Return the same measurements for real images: the accuracy of the judge."""
    x, y, factors = faces
    seen, found = look(judge, x)
    accuracy = (seen == y).double().mean().item()
    return {"domain": accuracy} | {name: correlation(found, factors, name) for name in CONTENT + STYLE}


def _distance(x, y):
    return (x - y).abs().mean().item()


def _mean(values):
    return sum(values) / len(values)


def table(rows):
    """Format {name: {column: number}} as a text table."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [" " * 18 + "".join(f"{column:>11}" for column in columns)]
    for name, row in rows.items():
        cells = (f"{row[column]:>11.3f}" if column in row else " " * 11 for column in columns)
        lines.append(f"{name:<18}" + "".join(cells))
    return "\n".join(lines)


def draw_curve(path, results):
    """Plot accuracy, colours and position over the steps. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [result["step"] for result in results]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
    for axis, mode in zip(axes, MODES, strict=True):
        for name in ("domain", "fur", "background", "x", "tilt", "diversity"):
            if name in results[0][mode]:
                axis.plot(steps, [result[mode][name] for result in results], label=name, marker=".")
        axis.set(title=mode, xlabel="iteration", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


def report(options):
    """Measure the requested steps, print tables, and write quality.json and the curve.

    Raises UserError if a checkpoint or the demo set is missing or damaged.
    """
    every = saved_steps(options.checkpoint_dir, NETS_EMA)
    newest = newest_step(options.checkpoint_dir, NETS_EMA)
    steps = {"newest": [newest], "all": every}[options.steps] if isinstance(options.steps, str) else options.steps
    judge, results = None, []
    for step in steps:
        solver = load_networks(options.checkpoint_dir, step)
        if judge is None:
            size = solver.config.img_size
            judge = train_judge(*read_faces(options.data, "train", size))
            faces = read_faces(options.data, "val", size)
            own = measure_judge(judge, faces)
            faces = first_of_each(faces, options.images)
            print(table({"real images": own}))
        result = {mode: measure(solver, judge, faces, mode) for mode in MODES}
        print(table({f"{step} {mode}": row for mode, row in result.items()}), flush=True)
        results.append({"step": step, **result})
    with atomic_write(Path(options.out) / "quality.json") as temporary:
        temporary.write_text(json.dumps({"judge": own, "results": results}, indent=2) + "\n", encoding="utf-8")
    if options.curve:
        draw_curve(options.curve, results)


def main(argv=None):
    """Run the command line. Exits with status 2 after printing a UserError."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint_dir", default="expr/checkpoints/demo", help="folder of checkpoints")
    parser.add_argument("--data", default="data/demo", help="folder created by python -m data.demo")
    parser.add_argument("--images", type=int, help="validation images per domain (default all)")
    parser.add("steps", STEPS, "newest", "newest, all, or steps like 400,800", metavar="LIST")
    parser.add_argument("--out", default="expr/quality", help="folder for quality.json")
    parser.add_argument("--curve", help="image file for a plot over the steps (needs matplotlib)")
    parser.run(report, argv)


if __name__ == "__main__":
    main()
