"""A slow start for what --init_from gave: in the first iterations its parameters move less than the others."""

from contextlib import contextmanager

import torch

from core.checkpoint.init_from import AVERAGED, _head, _last, heads


def paces(args, nets):
    """By how much less what was inherited moves: {network: {parameter's name: args.init_lr_scale}}.

    Of D's last layer it is a tensor, 1 in the rows of new domains. What is not named moves as it would.
    """
    labels, scale, found = heads(args), args.init_lr_scale, {}
    for name in (*AVERAGED, *["discriminator"] * args.inherited["discriminator"]):
        last = _last(nets[name].state_dict())
        found[name] = {}
        for key, parameter in nets[name].named_parameters():
            label, _ = _head(key)
            if label is None or label in labels:
                found[name][key] = scale
            if key in last:
                rows = [scale if label in labels else 1.0 for label in range(len(parameter))]
                shape = (-1, *[1] * (parameter.ndim - 1))
                found[name][key] = torch.tensor(rows, dtype=parameter.dtype).view(shape)
    return found


@contextmanager
def slowed(network, paces):
    """Within it the parameters that `paces` names move by their pace times what an optimizer's step would move them.

    Adam's step is proportional to the learning rate, so this is a lower one, for single tensors or rows of them,
    without groups of parameters, which checkpoints of the reference do not have.
    """
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters() if key in paces}
    yield
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key in paces:
                pace = paces[key]
                pace = pace.to(parameter) if isinstance(pace, torch.Tensor) else pace
                parameter.copy_(torch.lerp(before[key], parameter, pace))
