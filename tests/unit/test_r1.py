"""R1 by first derivatives, against PyTorch's second derivatives and by hand."""

import pytest
import torch
from munch import Munch
from torch import nn

from benchmarks.plain import r1_penalty
from core import losses
from core.layers import activation
from core.losses import adversarial_loss
from core.model import Discriminator, initialize

Y_ORG, Y_TRG = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])


class OneWeight(nn.Module):
    """D(x) = a * leaky ReLU(<w, x>)"""

    def __init__(self, a, w):
        super().__init__()
        self.a, self.w = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(w))
        self.act = activation()

    def forward(self, x, _y):
        return self.a * self.act(x.flatten(1) @ self.w)


def discriminator(logit=0.0, dtype=torch.float64):
    """A D with random biases, and the given mean logit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Discriminator(64, 2, 64, 2**10).to(dtype)
        initialize(network)
        for name, p in network.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(p, std=0.1)
    network.main[-1].bias.data.fill_(logit)
    return network


def images(dtype=torch.float64):
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(2)).mul(2).sub(1).to(dtype)


def discriminator_loss(network, x_real, y_org, x_fake, y_trg, lambda_reg):
    """The loss with a generator that gives x_fake for any content and style."""
    nets = Munch(discriminator=network, generator=Munch(render=lambda content, s_trg: x_fake))
    return losses.discriminator_loss(nets, x_real, y_org, y_trg, None, None, lambda_reg)


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def by_second_derivative(network, x_real, x_fake, lambda_reg):
    """The loss of D as the paper writes it, differentiated twice by autograd."""
    x_real = x_real.clone().requires_grad_()
    logits = network(x_real, Y_ORG)
    fake = adversarial_loss(network(x_fake, Y_TRG), 0)
    return adversarial_loss(logits, 1) + fake + lambda_reg * r1_penalty(logits, x_real)


@pytest.mark.parametrize("lambda_reg", [0, 1, 70])
@pytest.mark.parametrize("logit", [-300.0, 0.0, 20.0, 300.0])
def test_gradient_equals_the_second_derivative(lambda_reg, logit):
    """Also where D is so sure that the adversarial loss has almost no gradient, or none in float32."""
    network, (x_real, x_fake) = discriminator(logit), images()
    expected = by_second_derivative(network, x_real, x_fake, lambda_reg)
    found, terms, _ = discriminator_loss(network, x_real, Y_ORG, x_fake, Y_TRG, lambda_reg)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradients(network, found), gradients(network, expected), rtol=1e-9, atol=1e-14)
    assert terms["reg"] > 0 and not terms["reg"].requires_grad


@pytest.mark.parametrize("logit", [-300.0, 0.0, 20.0, 300.0])
def test_float32_is_as_exact_as_the_second_derivative(logit):
    exact, rough, (x_real, x_fake) = discriminator(logit), discriminator(logit, torch.float32), images()
    expected = gradients(exact, by_second_derivative(exact, x_real, x_fake, 1))
    x_real, x_fake = x_real.float(), x_fake.float()
    usual = gradients(rough, by_second_derivative(rough, x_real, x_fake, 1))
    found = gradients(rough, discriminator_loss(rough, x_real, Y_ORG, x_fake, Y_TRG, 1)[0])
    assert (found - expected).norm() <= 3 * (usual - expected).norm() + 1e-6 * expected.norm()


@pytest.mark.parametrize("pixel, slope", [(1.0, 1.0), (-1.0, 0.2)])
def test_one_weight_by_hand(pixel, slope):
    """R1 of a * leaky ReLU(<w, x>) is (a * slope)^2 |w|^2 / 2. Its derivative by a is a * slope^2 |w|^2."""
    network = OneWeight(3.0, [2.0, 1.0])
    x_real, x_fake = torch.tensor([[[[pixel, 0.0]]]]), torch.zeros(1, 1, 1, 2)
    y = torch.tensor([0])
    loss, terms, _ = discriminator_loss(network, x_real, y, x_fake, y, lambda_reg=1.0)
    assert terms["reg"].item() == pytest.approx(0.5 * 9 * slope**2 * 5)
    without, _, _ = discriminator_loss(network, x_real, y, x_fake, y, lambda_reg=0.0)
    by_a, by_w0, by_w1 = (gradients(network, loss) - gradients(network, without)).tolist()
    assert by_a == pytest.approx(3 * slope**2 * 5, rel=1e-5)
    assert (by_w0, by_w1) == pytest.approx((9 * slope**2 * 2, 9 * slope**2 * 1), rel=1e-5)


def test_images_and_their_gradients_keep_no_graph():
    network, (x_real, x_fake) = discriminator(), images()
    discriminator_loss(network, x_real, Y_ORG, x_fake, Y_TRG, 1)[0].backward()
    assert not x_real.requires_grad and x_real.grad is None
