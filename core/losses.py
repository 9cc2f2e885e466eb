"""The objective of StarGAN v2 (paper, section 2.2, equations 1 to 5).

Pure functions of networks and tensors. A loss is a mean over images. Each function also returns its terms and meters
(values that are not part of the loss) as {name: detached scalar}. They take networks as items of `nets`, since older
versions of torch.compile cannot follow attributes of a Munch.
"""

import torch
from torch.nn import functional as F

from core import r1
from core.augment import augmented
from core.model import face_masks
from core.system.device import at_least_single


def adversarial_loss(logits, target):
    """Return the binary cross entropy of logits (N,) for a target of 0 or 1 (equation 1)."""
    logits = at_least_single(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def distance(x, y):
    """Return the mean absolute difference of two tensors of the same shape."""
    return F.l1_loss(at_least_single(x), at_least_single(y))


def discriminator_loss(nets, x_real, y_org, y_trg, content, s_trg, lambda_reg, augment=None):
    """Return the loss of D: real images of y_org against images that G generates from content and s_trg, plus R1.

    content: of x_real. s_trg (N, style_dim): the target style, in domain y_trg. augment: None, or random numbers
    (N, 2, NUMBERS) and the probability p, see `_seeing`.
    Returns (loss, {"real", "fake", "reg"}, {"sign": mean sign of the logits at real images}).
    """
    generator = nets["generator"]
    see_real, see_fake = (_seeing(nets["discriminator"], augment, is_fake) for is_fake in (0, 1))
    with torch.no_grad():
        x_fake = generator.render(content, s_trg)
    with torch.autocast(x_real.device.type, enabled=False):  # R1 squares small numbers, so bf16 is too coarse.
        logits, gradient, inputs = r1.logits_and_gradient(see_real, x_real, y_org)
        c = torch.func.grad(adversarial_loss)(logits, 1)
        weight_gradient = r1.weight_gradient(see_real, x_real, y_org, gradient, inputs, c, lambda_reg)
    terms = {
        "real": adversarial_loss(logits, 1),
        "fake": adversarial_loss(see_fake(x_fake, y_trg), 0),
        "reg": r1.penalty(gradient),
    }
    loss = terms["real"] + terms["fake"] + lambda_reg * terms["reg"] + weight_gradient
    return loss, _detached(terms), {"sign": logits.sign().mean()}


def generator_loss(nets, x_src, y_org, y_trg, s_trg, s_trg2, lambda_sty, lambda_ds, lambda_cyc, masks=None,
                   augment=None):  # fmt: skip
    """Return the loss of G, F and E: adversarial, style reconstruction, diversity and cycle consistency.

    s_trg (N, style_dim): the target style, may have a graph. s_trg2: a second style for the diversity term; its output
    x_fake2 is a constant. masks: of x_src, for faces. augment: see `discriminator_loss`.
    Returns (loss, {"adv", "sty", "ds", "cyc"}, {"src": distance of x_fake from x_src, 0 if G changes nothing}).
    """
    generator, encoder, see_fake = nets["generator"], nets["style_encoder"], _seeing(nets["discriminator"], augment, 1)
    content = generator.content(x_src, masks)
    x_fake = generator.render(content, s_trg)
    with torch.no_grad():
        x_fake2 = generator.render(content.detach(), s_trg2)
    s_src = encoder(x_src, y_org)
    x_rec = generator.render(generator.content(x_fake, face_masks(nets, x_fake)), s_src)
    terms = {
        "adv": adversarial_loss(see_fake(x_fake, y_trg), 1),  # equation 1
        "sty": distance(encoder(x_fake, y_trg), s_trg),  # equation 2
        "ds": distance(x_fake, x_fake2),  # equation 3
        "cyc": distance(x_rec, x_src),  # equation 4
    }
    loss = terms["adv"] + lambda_sty * terms["sty"] - lambda_ds * terms["ds"] + lambda_cyc * terms["cyc"]
    return loss, _detached(terms), {"src": distance(x_fake.detach(), x_src)}


def _seeing(discriminator, augment, is_fake):
    """Return D as a function of plain images that it sees through a random transform (core.augment).

    augment: None, or random numbers (N, 2, NUMBERS) for real and generated images, and the probability p.
    """
    if augment is None:
        return discriminator
    numbers, p = augment
    return lambda x, y: discriminator(augmented(x, numbers[:, is_fake], p), y)


def _detached(terms):
    return {name: term.detach() for name, term in terms.items()}
