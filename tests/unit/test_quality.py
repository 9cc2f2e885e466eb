"""The judge of translations, with translators of known quality."""

import pytest
import torch
from munch import Munch
from torch import nn

from benchmarks import judge, quality
from data import demo


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    demo.make(folder, size=32, train=150, val=12)
    return folder


@pytest.fixture(scope="module")
def val(data):
    return judge.read_faces(data, "val", 32)


@pytest.fixture(scope="module")
def trained(data):
    return judge.train_judge(*judge.read_faces(data, "train", 32))


class Codes(nn.Module):
    """A style is the code or reference itself."""

    def forward(self, code, y):
        return code


class Translator(nn.Module):
    """Returns the source if `keeps`, else the style, which is the reference or the noise itself."""

    def __init__(self, keeps):
        super().__init__()
        self.keeps = keeps

    def content(self, x):
        return x

    def render(self, content, s):
        return content if self.keeps else s.reshape(len(s), 3, 32, 32)

    def forward(self, x, s):
        return self.render(x, s)


def solver_of(keeps):
    nets = Munch(generator=Translator(keeps), style_encoder=Codes(), mapping_network=Codes())
    return Munch(nets_ema=nets, device="cpu", config=Munch(latent_dim=3 * 32 * 32))


def test_judge_recognises_real_images(trained, val):
    own = quality.measure_judge(trained, val)
    assert own["domain"] > 0.9 and min(own[name] for name in ("x", "y", "fur", "background")) > 0.8, own


def test_identity_translator_keeps_domain_and_content(trained, val):
    for mode in quality.MODES:
        found = quality.measure(solver_of(keeps=True), trained, val, mode)
        assert found["domain"] < 0.1 and found["x"] > 0.8  # its domain stays the source's, and so does its place
        assert found["diversity"] == found["cycle"] == 0
    assert abs(found["fur"]) < 0.3 and abs(found["background"]) < 0.3


def test_copying_translator_takes_domain_and_style_only(trained, val):
    found = quality.measure(solver_of(keeps=False), trained, val, "reference")
    assert found["domain"] > 0.9 and min(found["fur"], found["background"]) > 0.8
    assert abs(found["x"]) < 0.3 and abs(found["tilt"]) < 0.3
    # Of four drawn from twelve two may be equal: on average 11 of 12 pairs differ.
    assert 0.8 < found["diversity"] < 1.05 and found["cycle"] == 0  # the way back is a copy of the source


def test_correlation_of_known_factors():
    factors = torch.randn(50, judge.WIDTH)
    assert judge.correlation(3 * factors + 1, factors, "fur") == pytest.approx(1)
    assert judge.correlation(-factors, factors, "x") == pytest.approx(-1)
    half = factors.clone()
    half[:, 5:7] = torch.tensor([1.0, -1.0]).repeat(25)[:, None]
    expected = sum(torch.corrcoef(torch.stack([half[:, i], factors[:, i]]))[0, 1].item() for i in (4, 5, 6)) / 3
    assert judge.correlation(half, factors, "fur") == pytest.approx(expected, abs=1e-6)
