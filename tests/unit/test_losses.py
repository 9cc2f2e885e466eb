import pytest
import torch
from munch import Munch

from core import losses
from core.model import Discriminator, Generator, MappingNetwork, StyleEncoder
from tests import golden

Y_ORG, Y_TRG = torch.tensor([0, 2]), torch.tensor([1, 0])


WIDTHS = [
    pytest.param((2**11, "losses_64_narrow.json"), id="narrow"),
    pytest.param((2**14, "losses_64.json"), id="full", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=WIDTHS)
def case(request):
    """Networks in float64 with golden weights, and the golden figures of the four updates."""
    channel_base, file = request.param
    nets = Munch(
        generator=Generator(64, w_hpf=0, channel_base=channel_base),
        mapping_network=MappingNetwork(num_domains=3),
        style_encoder=StyleEncoder(64, num_domains=3, channel_base=channel_base),
        discriminator=Discriminator(64, 3, channel_base=channel_base),
    )
    for name, network in nets.items():
        golden.fill(name, network).double()
    return nets, golden.read(file)


def style(nets, update, second=False):
    suffix = "2" if second else ""
    if update.endswith("latent"):
        return nets.mapping_network(golden.code("z" + suffix).double(), Y_TRG)
    return nets.style_encoder(golden.image("x_ref" + suffix).double(), Y_TRG)


@pytest.mark.parametrize("update", ["d_latent", "d_ref", "g_latent", "g_ref"])
def test_losses_and_gradients_equal_golden_numbers(case, update):
    nets, expected = case[0], case[1][update]
    x = golden.image("x").double()
    for network in nets.values():
        network.zero_grad()
    if update.startswith("d"):
        with torch.no_grad():
            content, s_trg = nets.generator.content(x), style(nets, update)
        loss, parts, _ = losses.discriminator_loss(nets, x, Y_ORG, Y_TRG, content, s_trg, lambda_reg=1)
    else:
        with torch.no_grad():
            s_trg2 = style(nets, update, second=True)
        loss, parts, meters = losses.generator_loss(
            nets, x, Y_ORG, Y_TRG, style(nets, update), s_trg2, lambda_sty=1, lambda_ds=2, lambda_cyc=1
        )
        assert 0 < meters["src"] < 2  # no part of the loss
    loss.backward()

    assert not x.requires_grad, "the input was changed"
    assert loss.item() == pytest.approx(expected["total"], rel=1e-8)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected["parts"], rel=1e-8)
    norms = {
        f"{name}.{key}": 0.0 if p.grad is None else p.grad.norm().item()
        for name, network in nets.items()
        for key, p in network.named_parameters()
    }
    assert norms == pytest.approx(expected["grad_norms"], rel=1e-7, abs=1e-12)


def test_adversarial_loss_of_known_logits():
    logits = torch.tensor([0.0, 0.0])
    assert losses.adversarial_loss(logits, 1).item() == pytest.approx(0.6931472)
    assert losses.adversarial_loss(torch.tensor([20.0]), 1).item() < 1e-6
    assert losses.adversarial_loss(torch.tensor([20.0]), 0).item() == pytest.approx(20.0)
