"""Solvers with golden weights, and random inputs of an iteration."""

import torch
from munch import Munch

import main
from core.solver import Solver
from tests import golden
from tests.command import as_flags


def golden_solver(file, *flags):
    """A Solver with golden weights in float64, and the golden figures of three iterations. flags: further flags."""
    expected = golden.read(f"{file}.json")
    settings = {name: value for name, value in expected["settings"].items() if name != "batch"}  # of the inputs
    settings["ema_decay"] = settings.pop("ema_beta")
    solver = Solver(main.parse_args(["--mode", "train", *flags, *as_flags(settings)]))
    for name, network in solver.nets.items():
        golden.fill(name, network.cpu())
        if name in solver.nets_ema:
            solver.nets_ema[name].load_state_dict(network.state_dict())
    for network in (*solver.nets.values(), *solver.nets_ema.values()):
        network.to(solver.device, torch.float64)
    return solver, expected


def random_inputs(config, seed=0, count=2, dtype=torch.float32):
    """Inputs as from InputFetcher's mode "train", on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, config.img_size, config.img_size)
    images = {name: torch.rand(shape, generator=generator) * 2 - 1 for name in ("x_src", "x_ref", "x_ref2")}
    codes = {name: torch.randn(count, config.latent_dim, generator=generator) for name in ("z_trg", "z_trg2")}
    labels = {name: torch.randint(config.num_domains, (count,), generator=generator) for name in ("y_src", "y_ref")}
    return Munch({name: tensor.to(dtype) for name, tensor in {**images, **codes}.items()}, **labels)
