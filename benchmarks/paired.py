"""Measure translations where the true counterpart of every image is known.

python -m benchmarks.paired --checkpoint_dir expr/checkpoints/emoji --data data/emoji/val --grid paired.png

--data holds one folder per domain of the checkpoint. Equal file names show the same thing, such as an emoji that two
vendors drew. The benchmark translates each image into the other domains in three ways, and compares the result with the
image of the same name there. `leave` compares the source itself.

leave        the source, unchanged
own style    the style that E extracts from the source, with the layer of the target domain
true style   the style of the true counterpart: an upper bound
mean style   the mean style of the target domain

L1 is the mean absolute difference for values in [-1, 1]. Retrieval is the fraction of results whose true counterpart is
the nearest (in L1) of all images of the target domain; chance is one divided by their number.
"""

import statistics
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import torch

from benchmarks.quality import load_networks, table
from core.checkpoint.io import newest_step
from core.checkpoint.steps import NETS_EMA
from core.cli.parser import Parser
from core.data_loader import ImageList, test_transform
from core.images.folders import SAVED_SUFFIXES, domain_names, images_below, mirrored_names
from core.images.grid import Grid
from core.model import Content
from core.sampling.translate import mean_styles, to_uint8
from core.system import console
from core.system.errors import UserError

CHOICES = ("leave", "own style", "true style", "mean style")
AT_ONCE = 32  # sources per batch
SHOWN = 12  # columns of the grid


@dataclass(frozen=True)
class Domain:
    """The images of a domain. names: their paths in its folder without suffixes, in the order of x (N, 3, H, W)."""

    names: list
    x: torch.Tensor


def read_domains(root, domains, transform):
    """Return the Domain of each name in a list. Raises UserError if the sub-folders of root are others."""
    if domain_names(root) != list(domains):
        raise UserError(f"Cannot use {root} (its sub-folders are not {', '.join(domains)}). Rename them.")
    found = []
    for name in domains:
        folder = Path(root, name)
        paths = images_below(folder)
        x = torch.stack([image for image, _ in ImageList([(path, 0) for path in paths], transform)])
        found.append(Domain(mirrored_names(paths, folder), x))
    return found


def pairs_of(src, trg):
    """Return the indices (N,) of the sources that have a counterpart of the same name, and of these counterparts.

    Raises UserError if there are fewer than two.
    """
    number_of = {name: number for number, name in enumerate(trg.names)}
    pairs = [(number, number_of[name]) for number, name in enumerate(src.names) if name in number_of]
    if len(pairs) < 2:
        found = console.counted(len(pairs), "pair")
        raise UserError(f"Cannot compare the domains ({found} of equal file names). Use folders with equal file names.")
    return torch.tensor(pairs).unbind(1)


@torch.no_grad()
def translations(solver, x_src, x_true, y_trg):
    """Translate N sources into domain y_trg in all CHOICES -> {choice: (N, 3, H, W)}, clamped to [-1, 1]."""
    nets, found = solver.nets_ema, {choice: [] for choice in CHOICES}
    mean = mean_styles(nets.mapping_network, solver.config.latent_dim, [y_trg])
    for both in zip(x_src.split(AT_ONCE), x_true.split(AT_ONCE), strict=True):
        x, x_ref = (part.to(solver.device) for part in both)
        content, y = Content.of(nets, x, solver.inference_batch), torch.full((len(x),), y_trg, device=solver.device)
        styles = {"own style": nets.style_encoder(x, y), "true style": nets.style_encoder(x_ref, y), "mean style": mean}
        for choice, s_trg in styles.items():
            found[choice].append(nets.generator.render(content, s_trg).clamp(-1, 1).cpu())
        found["leave"].append(x.cpu())
    return {choice: torch.cat(parts) for choice, parts in found.items()}


def scores(results, x_trg, true):
    """Return {"L1", "retrieval"} of results (N, 3, H, W). x_trg (M, 3, H, W): all images of the target domain. true
    (N,): indices of the counterparts among them."""
    distances = torch.cdist(results.flatten(1), x_trg.flatten(1), p=1) / x_trg[0].numel()  # (N, M)
    of_true = distances[torch.arange(len(results)), true]
    is_nearest = distances.argmin(1) == true
    return {"L1": of_true.mean().item(), "retrieval": is_nearest.double().mean().item()}


def draw_rows(path, rows):
    """Write a grid of rows (title, images (N, 3, H, W))."""
    columns = max(len(images) for _, images in rows)
    grid = Grid(len(rows), columns, rows[0][1].shape[-1], [title for title, _ in rows])
    for number, (_, images) in enumerate(rows):
        grid.put(number, 0, to_uint8(images))
    grid.save(path)


def report(options):
    """Translate all pairs, print the scores of each task and their means, and write the grid. Raises UserError."""
    if options.grid and Path(options.grid).suffix not in SAVED_SUFFIXES:
        raise UserError(f"--grid must be a file such as grid.png, got {options.grid}.")
    step = options.resume_iter or newest_step(options.checkpoint_dir, NETS_EMA)
    solver = load_networks(options.checkpoint_dir, step)
    config = solver.config
    transform = test_transform(config.img_size, config.resize)
    domains = read_domains(options.data, config.names_by_label, transform)
    rows, shown = [], []
    for y_src, y_trg in permutations(range(len(domains)), 2):
        (src, source), (trg, target) = ((domains[y], config.names_by_label[y]) for y in (y_src, y_trg))
        sources, true = pairs_of(src, trg)
        found = translations(solver, src.x[sources], trg.x[true], y_trg)
        rows.append({choice: scores(found[choice], trg.x, true) for choice in CHOICES})
        chance = f"retrieval by chance {1 / len(trg.x):.3f}"
        print(f"\n{source} to {target}, step {step}, {len(true)} pairs, {chance}\n{table(rows[-1])}", flush=True)
        chosen = torch.linspace(0, len(true) - 1, min(SHOWN, len(true))).long()
        shown += [(source if choice == "leave" else choice, found[choice][chosen]) for choice in CHOICES]
        shown.append((f"true {target}", trg.x[true[chosen]]))
    means = {
        choice: {key: statistics.mean(row[choice][key] for row in rows) for key in ("L1", "retrieval")}
        for choice in CHOICES
    }
    print(f"\nmean\n{table(means)}")
    if options.grid:
        draw_rows(options.grid, shown)


def main(argv=None):
    """Run the command line. Exits with status 2 after printing a UserError."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint_dir", required=True, help="folder of checkpoints")
    parser.add_argument("--resume_iter", type=int, help="step (default the newest)")
    parser.add_argument("--data", required=True, help="folder of paired images, one sub-folder per domain")
    parser.add_argument("--grid", help="image file for some translations")
    parser.run(report, argv)


if __name__ == "__main__":
    main()
