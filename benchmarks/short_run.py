"""Short trainings on the demo set, without files."""

import statistics
from collections import deque

import main as program
from core.data_loader import InputFetcher, get_train_loader
from core.solver import Solver


def train(flags, folder, iterations, seed, step, stops):
    """Train with --preset demo on the images of a folder, in this process.

    flags: text of further flags of main.py. step(solver, inputs, iteration) does an iteration and returns {name: number
    or scalar tensor}. Yields (iteration, Solver, {name: mean over the last tenth of the iterations}) at all `stops`.
    """
    line = f"--mode train --preset demo --num_workers 0 --eval_every 0 --seed {seed} {flags}".split()
    solver = Solver(program.parse_args([*line, "--train_img_dir", str(folder)]))
    config = solver.config
    shape = (config.img_size, config.batch_size, config.randcrop_prob, 0, seed, 0, iterations)
    loaders = [get_train_loader(folder, which, *shape) for which in ("source", "reference")]
    inputs = InputFetcher(*loaders, config.latent_dim, "train", seed)
    late = deque(maxlen=max(1, iterations // 10))
    for iteration in range(iterations):
        late.append({name: float(value) for name, value in step(solver, next(inputs), iteration).items()})
        if iteration + 1 in stops:
            yield iteration + 1, solver, {name: statistics.mean(row[name] for row in late) for name in late[0]}
