"""Known answers for FID and LPIPS, with golden weights saved where torchvision looks for them."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import AlexNet_Weights

from metrics import fid, lpips, transfer
from metrics.stats import Moments, frechet_distance, frechet_distance_of_few
from metrics.weights import MissingWeights, load_pretrained, weights_path
from tests import golden


@pytest.fixture(scope="module")
def expected():
    return golden.read("metrics.npz")


def test_inception_features_equal_golden_numbers(torch_cache, expected):
    y, x = np.mgrid[:512, :512]
    waves = 127 + 120 * np.stack([np.sin(x / 37 + y / 91), np.cos(x / 23 - y / 41), np.sin((x + y) / 67)], axis=2)
    array = (waves + np.random.RandomState(512).normal(0, 10, (512, 512, 3))).clip(0, 255).astype(np.uint8)
    image = fid.eval_transform(Image.fromarray(array), 256)
    torch.testing.assert_close(image[:, ::13, ::13], expected["eval_image_every13"], atol=1e-6, rtol=0)
    found = fid.pretrained()(image[None])
    torch.testing.assert_close(found, expected["inception_feature"], atol=1e-5, rtol=0)


def moments(features):
    return features.mean(0), np.cov(features, rowvar=False)


def test_frechet_distance_equals_golden_number(expected):
    a = np.random.RandomState(1).standard_normal((300, 64))
    b = np.random.RandomState(2).standard_normal((200, 64)) * 1.2 + 0.1
    assert frechet_distance(*moments(a), *moments(b)) == pytest.approx(float(expected["frechet_distance"]), rel=1e-9)
    assert frechet_distance(*moments(b), *moments(a)) == pytest.approx(float(expected["frechet_distance"]), rel=1e-9)


def test_frechet_distance_of_known_gaussians():
    generator = np.random.default_rng(0)
    a, shift = generator.standard_normal((50, 8)), generator.standard_normal(8)
    assert frechet_distance(*moments(a), *moments(a)) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(*moments(a), *moments(a + shift)) == pytest.approx(shift @ shift)
    d, e = np.diag([1.0, 4.0, 0.0]), np.diag([9.0, 0.0, 0.0])
    assert frechet_distance(np.zeros(3), d, np.zeros(3), e) == pytest.approx((1 - 3) ** 2 + 4)
    few = generator.standard_normal((5, 64))  # singular
    assert frechet_distance(*moments(few), *moments(few)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(5, 40), (300, 200), (1, 6), (7, 7)])
def test_frechet_distance_of_few_equals_the_general_one(n, m):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((n, 32)), generator.standard_normal((m, 32)) * 1.5 + 0.2
    covs = [np.cov(z, rowvar=False) if len(z) > 1 else np.zeros((32, 32)) for z in (x, y)]
    expected = frechet_distance(x.mean(0), covs[0], y.mean(0), covs[1])
    assert frechet_distance_of_few(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance_of_few(x, x) == pytest.approx(0, abs=1e-9)


def test_streaming_moments_equal_numpy():
    features = torch.randn(100, 16, generator=torch.Generator().manual_seed(0)) + 1000  # sums of cats would cancel
    streamed = Moments(16)
    for part in features.split((1, 30, 69)):
        streamed.add(part)
    mean, cov = streamed.result()
    np.testing.assert_allclose(mean, features.double().mean(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(features.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12)
    one = Moments(16)
    one.add(features[:1])
    assert not one.result()[1].any()


def test_lpips_equals_golden_numbers(torch_cache, expected):
    group = [golden.image(f"lpips{i}", 2, 3, 64, 64) for i in range(4)]
    assert lpips.calculate_lpips_given_images(group[:2]) == pytest.approx(float(expected["lpips_pair"]), abs=1e-6)
    assert lpips.calculate_lpips_given_images(group) == pytest.approx(float(expected["lpips_mean_of_4"]), abs=1e-6)
    assert lpips.calculate_lpips_given_images([group[0]] * 3) == pytest.approx(0, abs=1e-9)
    assert np.isnan(lpips.calculate_lpips_given_images(group[:1]))


def test_lpips_of_a_group_is_the_mean_of_its_pairs(torch_cache):
    group = [golden.image(f"lpips{i}", 2, 3, 64, 64) * (i + 1) for i in range(5)]  # not clamped
    pairs = [lpips.calculate_lpips_given_images([a, b]) for i, a in enumerate(group) for b in group[:i]]
    assert lpips.calculate_lpips_given_images(group) == pytest.approx(np.mean(pairs), rel=1e-6)


def test_scores_do_not_depend_on_autocast(torch_cache):
    x = golden.image("lpips0", 2, 3, 299, 299)
    for network in (fid.pretrained("cpu"), lpips.pretrained("cpu")):
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(x), expected)
    double = lpips.calculate_lpips_given_images([x.double(), -x.double()])
    assert double == pytest.approx(lpips.calculate_lpips_given_images([x, -x]), rel=1e-5)


def test_networks_are_loaded_once(torch_cache):
    assert fid.pretrained("cpu") is fid.pretrained("cpu") and lpips.pretrained("cpu") is lpips.pretrained("cpu")
    assert not any(p.requires_grad for p in fid.pretrained().parameters())


@pytest.mark.parametrize("kind", ["absent", "text", "other"])
def test_missing_weights_say_where_they_belong(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(transfer, "fetch", offline)
    path = weights_path(AlexNet_Weights.IMAGENET1K_V1)
    path.parent.mkdir(parents=True)
    if kind == "text":
        path.write_text("<html>")
    if kind == "other":
        torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(MissingWeights) as caught:
        load_pretrained(torchvision.models.alexnet, AlexNet_Weights.IMAGENET1K_V1)
    sentence = str(caught.value)
    assert path.name in sentence and AlexNet_Weights.IMAGENET1K_V1.url in sentence and str(path.parent) in sentence
    assert "\n" not in sentence
