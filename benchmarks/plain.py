"""Plain training iteration, as in the original code: the baseline of the benchmarks.

It computes convolutions next to a resampling at the larger size, runs the full generator for each image and style, and
computes weight gradients of all networks in every update.
"""

import math
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from core.layers import AdainResBlk, ResBlk
from core.losses import adversarial_loss, distance
from core.resample import downsample, upsample


def resblk(block, x):
    """ResBlk.forward with its first convolution at the larger size: x (N, dim_in, H, W) -> (N, dim_out, ...)."""
    main = block.conv1(block.act(block.norm1(x)))
    main = block.conv2(block.act(block.norm2(downsample(main) if block.downsample else main)))
    skip = block.conv1x1(x)
    return (main + (downsample(skip) if block.downsample else skip)) / math.sqrt(2)


def adain_resblk(block, x, s):
    """AdainResBlk.forward at the larger size: x (N, dim_in, H, W), s (N, style_dim) -> (N, dim_out, ...)."""
    main = block.act(block.norm1(x, s))
    main = block.conv1(upsample(main) if block.upsample else main)
    main = block.conv2(block.act(block.norm2(main, s)))
    if not block.has_skip:
        return main
    return (main + block.conv1x1(upsample(x) if block.upsample else x)) / math.sqrt(2)


@contextmanager
def plain_arithmetic():
    """Make the blocks compute the plain formulas within the context."""
    fused = ResBlk.forward, AdainResBlk.forward
    ResBlk.forward, AdainResBlk.forward = resblk, adain_resblk
    try:
        yield
    finally:
        ResBlk.forward, AdainResBlk.forward = fused


def r1_penalty(logits, x_real):
    """Return half the squared gradient norm at real images, averaged over N, with a graph of second derivatives."""
    (gradient,) = torch.autograd.grad(logits.sum(), x_real, create_graph=True)  # (N, 3, H, W)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()


def train_step(solver, inputs, iteration):
    """Run `Solver.train_step` without optimizations, with the same results. Use within plain_arithmetic."""
    nets, args, x_src, y_org, y_trg = solver.nets, solver.config, inputs.x_src, inputs.y_src, inputs.y_ref
    G, E, D = nets.generator, nets.style_encoder, nets.discriminator
    losses = {}

    def update(prefix, learners, parts, weights):
        for optimizer in solver.optims.values():
            optimizer.zero_grad()
        sum(weight * part for weight, part in zip(weights, parts.values(), strict=True)).backward()
        for name in learners:
            solver.optims[name].step()
        losses.update({prefix + name: part.detach() for name, part in parts.items()})

    def update_d(prefix, style_network, code):
        with torch.no_grad():
            x_fake = G(x_src, style_network(inputs[code], y_trg))
        x_real = x_src.detach().requires_grad_()
        logits = D(x_real, y_org)
        parts = {
            "real": adversarial_loss(logits, 1),
            "fake": adversarial_loss(D(x_fake, y_trg), 0),
            "reg": r1_penalty(logits, x_real),
        }
        update(prefix, ["discriminator"], parts, (1, 1, args.lambda_reg))

    def update_g(prefix, learners, style_network, code):
        s_trg = style_network(inputs[code], y_trg)
        x_fake = G(x_src, s_trg)
        x_fake2 = G(x_src, style_network(inputs[f"{code}2"], y_trg)).detach()
        parts = {
            "adv": adversarial_loss(D(x_fake, y_trg), 1),
            "sty": distance(E(x_fake, y_trg), s_trg),
            "ds": distance(x_fake, x_fake2),
            "cyc": F.l1_loss(G(x_fake, E(x_src, y_org)), x_src),
        }
        update(prefix, learners, parts, (1, args.lambda_sty, -solver.lambda_ds(iteration), args.lambda_cyc))

    for network in nets.values():
        network.requires_grad_(True)
    update_d("D/latent_", nets.mapping_network, "z_trg")
    update_d("D/ref_", E, "x_ref")
    update_g("G/latent_", ["generator", "mapping_network", "style_encoder"], nets.mapping_network, "z_trg")
    update_g("G/ref_", ["generator"], E, "x_ref")
    solver.iteration.update_averages()
    return losses | {"G/lambda_ds": solver.lambda_ds(iteration + 1)}
