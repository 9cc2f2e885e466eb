import pytest
import torch
from torch import nn

from core import resample


def plain_down(x, conv):
    return resample.downsample(conv(x))


def plain_up(x, conv):
    return conv(resample.upsample(x))


@pytest.mark.parametrize(
    ("fused", "plain"), [(resample.conv_downsample, plain_down), (resample.upsample_conv, plain_up)], ids=["down", "up"]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [4, 16], ids=["small", "large"])
def test_fused_convolutions_equal_separate_resampling(fused, plain, bias, side):
    """Values, gradients and second gradients, borders included, for a random asymmetric kernel."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 3, side, side + 2, dtype=torch.float64, requires_grad=True)
    results = []
    for form in (fused, plain):
        y = form(x, conv)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        variables = [x, *conv.parameters()]
        first = torch.autograd.grad((y.tanh() * weights).sum(), variables, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [x, conv.weight])
        results.append([y, *first, *second])
    for found, expected in zip(*results, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
