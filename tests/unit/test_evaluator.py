"""Evaluation on a small data set, with golden weights in place of the published ones."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from metrics import lpips
from tests.evaluations import evaluation, images_of, networks


@pytest.fixture(scope="module")
def nets():
    return networks()


def test_diversity_is_the_mean_over_pairs_and_batches(nets, two_domains, torch_cache, tmp_path):
    """LPIPS of the images before rounding, by the function of the reference."""
    evaluated = evaluation(two_domains, tmp_path, save_images=False)
    drawn, to_inception = [], evaluated._to_inception
    evaluated._to_inception = lambda x_fake: drawn.append(x_fake) or to_inception(x_fake)
    _, diversity = evaluated.task(nets, "bear", "cat", None, seed=1)
    batches = [drawn[:3], drawn[3:]]  # sources 1 and 2, then 3
    assert [len(images[0]) for images in batches] == [2, 1]
    expected = np.mean([lpips.calculate_lpips_given_images(group) for group in batches])
    assert diversity == pytest.approx(expected, rel=1e-5) and diversity > 0
    assert not (tmp_path / "bear2cat").exists()


def test_outputs_depend_only_on_seed_and_source(nets, two_domains, torch_cache, tmp_path):
    def pictures(name, batch_size, seed):
        evaluation(two_domains, tmp_path / name, batch_size=batch_size).task(nets, "bear", "cat", None, seed)
        return np.stack([np.asarray(image).astype(int) for image in images_of(tmp_path / name / "bear2cat")])

    one, whole, other = pictures("one", 1, 1), pictures("whole", 8, 1), pictures("other", 8, 2)
    assert np.abs(one - whole).max() <= 1 < np.abs(other - whole).max()


def test_references_of_a_source_are_distinct_if_possible(nets, two_domains, torch_cache, tmp_path):
    evaluated = evaluation(two_domains, tmp_path, outputs=3)
    references = evaluated.reference_codes(nets.style_encoder, "bear")
    generators = [torch.Generator().manual_seed(number) for number in range(4)]
    chosen = evaluated._choose_references(references, generators)
    assert chosen.shape == (3, 4, 64)
    for source in range(4):
        assert len(torch.unique(chosen[:, source], dim=0)) == 3
    assert evaluated._choose_references(references[:1], generators).shape == (3, 4, 64)


def test_real_features_are_cached_until_images_change(two_domains, torch_cache, tmp_path):
    copied = tmp_path / "data"
    shutil.copytree(two_domains, copied)
    first = evaluation(copied, tmp_path).real_features("bear")
    again = evaluation(copied, tmp_path)
    again.inception = None  # must not be asked
    for a, b in zip(first, again.real_features("bear"), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    Image.new("RGB", (32, 32), "red").save(copied / "train" / "bear" / "00000.png")
    assert not torch.equal(evaluation(copied, tmp_path).real_features("bear").mean, first.mean)
    caches = list(tmp_path.glob("real_bear_*.npz"))
    assert len(caches) == 2
    for cache in caches:
        cache.write_bytes(cache.read_bytes()[:1000])  # damaged: made again
    assert evaluation(copied, tmp_path).real_features("bear").mean.isfinite().all()
