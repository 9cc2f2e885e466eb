"""A slow start for networks of --init_from: for the first iterations they move less than what is new."""

from contextlib import contextmanager

import torch

from core.checkpoint.init_from import AVERAGED, head_label, last_layer, match_heads


def lr_factors(nets, inherited, domains, scale):
    """By what the updates of inherited parameters are multiplied: {network: {parameter's name: scale}}.

    For D's last layer it is a tensor, 1 in the rows of new domains. Parameters that are not named move as usual.
    inherited, domains: see `core.checkpoint.init_from.load_source`.
    """
    labels, factors = match_heads(inherited, domains), {}
    for name in (*AVERAGED, "discriminator") if inherited["discriminator"] else AVERAGED:
        last = last_layer(nets[name].state_dict())
        factors[name] = {}
        for key, parameter in nets[name].named_parameters():
            if key in last:
                rows = [scale if label in labels else 1.0 for label in range(len(parameter))]
                factors[name][key] = torch.tensor(rows, dtype=parameter.dtype).view(-1, *[1] * (parameter.ndim - 1))
            elif head_label(key) in (None, *labels):
                factors[name][key] = scale
    return factors


@contextmanager
def scaled_update(network, factors):
    """Within the context, an optimizer's step moves the named parameters by their factor times the step."""
    # Adam's step is proportional to the learning rate. So this is a lower learning rate for single tensors, or rows of
    # them, without groups of parameters, which checkpoints of the reference do not have.
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters() if key in factors}
    yield
    with torch.no_grad():
        for key, old in before.items():
            parameter, factor = network.get_parameter(key), factors[key]
            factor = factor.to(parameter) if isinstance(factor, torch.Tensor) else factor
            parameter.copy_(torch.lerp(old, parameter, factor))
