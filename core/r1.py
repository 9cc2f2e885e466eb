"""R1 regularization of D by first derivatives only (Mescheder et al. 2018, equation 9).

R1 is half the squared gradient norm |g|^2 / 2 at real images, with g = dD/dx. Its gradient by the weights is a second
derivative of D. PyTorch computes the second derivative of a convolution as a convolution with a kernel as large as the
image, which is slow. This module needs no second derivative.

D is piecewise linear: its only nonlinear function, leaky ReLU, multiplies each value by a slope of 1 or 0.2. Near x, D
equals the affine function L that multiplies by the slopes at x, whatever its input is. So L(x + v) - L(x) is the
derivative of D at x in the direction v. For v = g, this derivative is |g|^2. With v constant, the weights get from it

    d/dw (L(x + v) - L(x)) = d/dw <g, v> = <dg/dw, g> = d/dw |g|^2 / 2.

For each image, the adversarial loss has the gradient c dD/dw, where c is its derivative by the logit. L is affine, so
one pass at x + r v with r = lambda / c has both gradients, of which c is the common factor:

    c dL(x + r v)/dw = c dD/dw + lambda d/dw |g|^2 / 2.

(For means over N images, c includes the factor 1 / N, and r = lambda / (N c).)

An update therefore passes real images through D forward and backward for g, then through L forward and backward. These
are 5 times the products of one forward pass, where the second derivative takes 6.
"""

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from core.layers import SLOPE


class RecordSlopes(TorchFunctionMode):
    """Within the context, append the input of each leaky ReLU to a list. The signs determine the slopes."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.leaky_relu:
            self.inputs.append(args[0].detach())
        return func(*args, **(kwargs or {}))


class FixSlopes(TorchFunctionMode):
    """Within the context, leaky ReLUs have the slopes at `inputs`, in the order of RecordSlopes."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs = iter(inputs)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.leaky_relu:
            # The gradient of leaky ReLU is the product with its slopes, in one pass over memory.
            return torch.ops.aten.leaky_relu_backward(args[0], next(self.inputs), SLOPE, False)
        return func(*args, **(kwargs or {}))


def logits_and_gradient(discriminator, x, y):
    """Return logits (N,), their gradient by the images (N, 3, H, W), and the inputs of leaky ReLUs, without a graph."""

    def total(x):
        inputs = []
        with RecordSlopes(inputs):
            logits = discriminator(x, y)
        return logits.sum(), (logits, inputs)

    with torch.no_grad():  # Only the images need gradients here.
        gradient, (logits, inputs) = torch.func.grad(total, has_aux=True)(x)
    return logits, gradient, inputs


def penalty(gradient):
    """Return R1 for gradients (N, 3, H, W): half the squared norm, averaged over N."""
    return 0.5 * gradient.square().flatten(1).sum(1).mean()


def weight_gradient(discriminator, x, y, gradient, inputs, c, lambda_reg):
    """Return a scalar of value 0 whose gradient by D's weights is that of the loss at real images.

    x, y: images and domains. gradient, inputs: from `logits_and_gradient`. c (N,): derivative of the adversarial loss
    by the logits, < 0. lambda_reg: weight of R1.
    """
    # D may be so sure that c is 0. The limit keeps r finite, and its gradient, eps^2 dD/dw, is far below rounding.
    c = c.clamp(max=-(torch.finfo(c.dtype).eps ** 2))
    r = lambda_reg / (len(x) * c)
    with FixSlopes(inputs):
        logits = discriminator(x + r[:, None, None, None] * gradient, y)
    total = (c * logits).sum()
    return total - total.detach()
