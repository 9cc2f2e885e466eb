"""Slow start after --init_from: in the first iterations, inherited parameters change less than new ones."""

from contextlib import contextmanager

import torch

from core.checkpoint.init_from import head_label, last_layer, match_heads
from core.checkpoint.io import NETWORKS


def lr_factors(nets, inherited, domains, scale):
    """Return the learning-rate factors of inherited parameters: {network: {parameter's name: factor}}.

    The factor of D's last layer is a tensor with 1 in the rows of new domains. All other parameters are omitted, their
    factor is 1. inherited, domains: see `core.checkpoint.init_from.load_source`.
    """
    labels, factors = match_heads(inherited, domains), {}
    for name in (*NETWORKS, "discriminator") if inherited["discriminator"] else NETWORKS:
        last = last_layer(nets[name].state_dict())
        factors[name] = {}
        for key, parameter in nets[name].named_parameters():
            if key in last:
                rows = [scale if label in labels else 1.0 for label in range(len(parameter))]
                rows = torch.tensor(rows, dtype=parameter.dtype, device=parameter.device)
                factors[name][key] = rows.view(-1, *[1] * (parameter.ndim - 1))
            elif head_label(key) in (None, *labels):
                factors[name][key] = scale
    return factors


@contextmanager
def scaled_update(network, factors):
    """Multiply the changes that an optimizer makes to the parameters within the context by their factors."""
    # Adam's step is proportional to the learning rate, so this equals a lower learning rate for single tensors or rows.
    # Parameter groups would change the checkpoint format of the original code.
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters() if key in factors}
    yield
    with torch.no_grad():
        for key, old in before.items():
            parameter, factor = network.get_parameter(key), factors[key]
            factor = factor.to(parameter) if isinstance(factor, torch.Tensor) else factor
            parameter.copy_(torch.lerp(old, parameter, factor))
