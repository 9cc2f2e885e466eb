"""Translations whose true counterparts are known, with translators of known quality."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from benchmarks import paired
from core import data_loader
from core.system.errors import UserError
from tests.unit.test_quality import solver_of


def images(count, seed):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_choices_compare_the_source_its_style_and_the_true_style(monkeypatch):
    """A translator that returns the style as image, where the style is the reference itself."""
    x_src, x_true, solver = images(5, 0), images(5, 1), solver_of(keeps=False)
    solver.inference_batch = None
    monkeypatch.setattr(paired, "Content", SimpleNamespace(of=lambda nets, x, inference_batch: x))
    solver.nets_ema.mapping_network.on_cpu = torch.nn.Parameter(torch.zeros(1))
    found = paired.translations(solver, x_src, x_true, y_trg=1)
    assert torch.equal(found["leave"], x_src) and torch.equal(found["own style"], x_src)
    assert paired.scores(found["true style"], x_true, torch.arange(5)) == {"L1": 0, "retrieval": 1}
    assert found["mean style"].abs().max() < 0.1, "the mean of normal codes is 0"


def test_scores_are_the_mean_distance_and_the_share_of_nearest_counterparts():
    x_trg = torch.tensor([-1.0, 0.0, 1.0, 0.5])[:, None, None, None].expand(4, 3, 8, 8)
    results = torch.tensor([1.1, 0.2, -0.4])[:, None, None, None].expand(3, 3, 8, 8)
    found = paired.scores(results, x_trg, torch.tensor([2, 1, 0]))
    assert found["L1"] == pytest.approx((0.1 + 0.2 + 0.6) / 3)
    assert found["retrieval"] == pytest.approx(2 / 3)  # The last one is nearer to another image.


def test_pairs_are_images_of_the_same_name_among_all_of_the_target(tmp_path):
    for domain, names in {"a": ("1.png", "sub/2.png", "3.png"), "b": ("0.png", "sub/2.jpg", "3.png", "2.png")}.items():
        for name in names:
            path = tmp_path / domain / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (int(path.stem) * 50, 0, 0)).save(path)
    transform = data_loader.test_transform(8)
    a, b = paired.read_domains(tmp_path, ("a", "b"), transform)
    assert a.x.shape == (3, 3, 8, 8) and b.x.shape == (4, 3, 8, 8)
    sources, true = paired.pairs_of(a, b)
    assert [a.names[n] for n in sources] == [b.names[n] for n in true]
    assert {a.names[n] for n in sources} == {"sub/2", "3"}
    torch.testing.assert_close(a.x[sources][:, 0, 0, 0], b.x[true][:, 0, 0, 0], rtol=0, atol=0.02)
    with pytest.raises(UserError, match="are not b, c"):
        paired.read_domains(tmp_path, ("b", "c"), transform)
    (tmp_path / "a" / "3.png").unlink()
    with pytest.raises(UserError, match="1 pair of equal"):
        paired.pairs_of(*paired.read_domains(tmp_path, ("a", "b"), transform))
