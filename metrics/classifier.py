"""A classifier of domains: logistic regression of features, for the accuracy of translated images."""

import torch
from torch.nn import functional as F

PENALTY = 1e-3  # of squared weights; features are scaled to deviation 1


@torch.autocast("cpu", enabled=False)
def fit_classifier(features):
    """Return weights (classes, d) and biases (classes,) for features, one tensor (N, d) per class. Classes count
    equally."""
    x, counts = torch.cat(features), torch.tensor([len(part) for part in features])
    y = torch.arange(len(features)).repeat_interleave(counts)
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    x, shares = x.sub_(mean).div_(deviation), 1 / (len(features) * counts[y])
    weight, bias = (torch.zeros(len(features), *size, requires_grad=True) for size in ([x.shape[1]], []))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        losses = F.cross_entropy(x @ weight.T + bias, y, reduction="none")
        value = (losses * shares).sum() + PENALTY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    weight = weight.detach() / deviation  # for features that are not scaled
    return weight, bias.detach() - weight @ mean


@torch.autocast("cpu", enabled=False)
def accuracy(classifier, features, label):
    """Return the fraction of features (N, d) that a classifier, from `fit_classifier`, assigns to a label."""
    weight, bias = classifier
    return ((features @ weight.T + bias).argmax(1) == label).double().mean().item()
