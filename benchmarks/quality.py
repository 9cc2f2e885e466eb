"""How good translations of the demo set are, from what is known of its pictures; no pretrained network.

python -m benchmarks.quality --checkpoint_dir expr/demo/checkpoints --data data/demo
python -m benchmarks.quality --checkpoint_dir expr/demo/checkpoints --data data/demo --steps all --curve curve.png

A small network, the judge, learns from the real pictures what they show; how well is reported. Then every validation
picture is translated into the other domains, in styles of random codes (latent) and of validation pictures
(reference), and the judge looks: is it the domain that was asked for, do colours follow the reference, do
place and tilt follow the source? Diversity is the mean distance (L1) between outputs of one source in different
styles, as a share of that between real pictures of the domain; cycle is the mean distance (L1, of values in [-1, 1])
of the source from its way there and back.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path

import torch

from benchmarks.judge import correlation, look, read_faces, train_judge
from core.checkpoint.io import newest_step, saved_steps
from core.checkpoint.steps import NETS_EMA
from core.cli.args import parse_given
from core.cli.resolve import loaded_config
from core.solver import Solver
from core.system.errors import UserError
from core.system.files import atomic_write
from data.demo_faces import DOMAINS

MODES = ("latent", "reference")
CONTENT, STYLE = ("x", "y", "size", "tilt"), ("fur", "eyes", "background")
OUTPUTS = 4  # styles of each source and domain
AT_ONCE = 16  # sources


def load_networks(checkpoint_dir, step, device="auto"):
    """The averages of a step, ready to use -> Solver. Raises UserError where they are missing or damaged."""
    line = ["--mode", "sample", "--checkpoint_dir", checkpoint_dir, "--resume_iter", step, "--device", device]
    solver = Solver(loaded_config(parse_given([str(word) for word in line])))
    solver.load(step)
    return solver


@torch.no_grad()
def translate(solver, x_src, y_src, y_trg, codes, mode):
    """N sources in K styles of domain y_trg each -> x_fake (N, K, 3, H, W), mean cycle distance.

    x_src (N, 3, H, W) in [-1, 1], y_src (N,), y_trg an integer; codes: of mode "latent" (N, K, latent_dim), of mode
    "reference" pictures (N, K, 3, H, W).
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
    """What the judge sees in translations of faces = (x, y, factors) -> {name: number}."""
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
    """The first `count` faces of each domain; None: all."""
    y = faces[1]
    kept = torch.cat([(y == label).nonzero()[:count, 0] for label in range(len(DOMAINS))])
    return [column[kept] for column in faces]


def measure_judge(judge, faces):
    """The judge's own accuracy on real pictures, in the same terms."""
    x, y, factors = faces
    seen, found = look(judge, x)
    accuracy = (seen == y).double().mean().item()
    return {"domain": accuracy} | {name: correlation(found, factors, name) for name in CONTENT + STYLE}


def _distance(x, y):
    return (x - y).abs().mean().item()


def _mean(values):
    return sum(values) / len(values)


def table(rows):
    """{name: {column: number}} as lines of text, a row each."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [" " * 18 + "".join(f"{column:>11}" for column in columns)]
    for name, row in rows.items():
        cells = (f"{row[column]:>11.3f}" if column in row else " " * 11 for column in columns)
        lines.append(f"{name:<18}" + "".join(cells))
    return "\n".join(lines)


def draw_curve(path, results):
    """Accuracy, colour and place over the steps, as a picture. Raises ImportError where matplotlib is missing."""
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
    """Measure the steps asked for, print tables, and write quality.json and the curve.

    Raises UserError where a checkpoint or the demo set is missing or damaged.
    """
    every = saved_steps(options.checkpoint_dir, NETS_EMA)
    newest = newest_step(options.checkpoint_dir, NETS_EMA)
    steps = {"newest": [newest], "all": every}.get(options.steps) or [int(step) for step in options.steps.split(",")]
    judge, results = None, []
    for step in steps:
        solver = load_networks(options.checkpoint_dir, step)
        if judge is None:
            size = solver.config.img_size
            judge = train_judge(*read_faces(options.data, "train", size))
            faces = read_faces(options.data, "val", size)
            own = measure_judge(judge, faces)
            faces = first_of_each(faces, options.pictures)
            print(table({"real pictures": own}))
        result = {mode: measure(solver, judge, faces, mode) for mode in MODES}
        print(table({f"{step} {mode}": row for mode, row in result.items()}), flush=True)
        results.append({"step": step, **result})
    with atomic_write(Path(options.out) / "quality.json") as temporary:
        temporary.write_text(json.dumps({"judge": own, "results": results}, indent=2) + "\n", encoding="utf-8")
    if options.curve:
        draw_curve(options.curve, results)


def main(argv=None):
    """Report on a command line. Exits with status 2 and one sentence where a UserError is raised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint_dir", default="expr/checkpoints/demo")
    parser.add_argument("--data", default="data/demo", help="as python -m data.demo made it")
    parser.add_argument("--pictures", type=int, help="validation pictures of each domain to translate; left out: all")
    parser.add_argument("--steps", default="newest", help="newest, all, or steps such as 400,800")
    parser.add_argument("--out", default="expr/quality", help="folder for quality.json")
    parser.add_argument("--curve", help="also draw the numbers over the steps, into this file (needs matplotlib)")
    options = parser.parse_args(argv)
    try:
        report(options)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
