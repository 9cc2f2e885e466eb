import pickle
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from core import data_loader
from core.data_loader import InputFetcher, ReferenceDataset, get_test_loader, get_train_loader
from core.images import folders
from core.system.errors import UserError


@pytest.fixture
def uneven(tmp_path):
    """Two domains of 20 and 2 images, each of the colour of its domain."""
    for name, count, colour in (("red", 20, (255, 0, 0)), ("blue", 2, (0, 0, 255))):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (40, 30), colour).save(tmp_path / name / f"{number}.png")
    return tmp_path


def take(loader, count):
    return list(islice(loader, count))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))


def test_labels_are_positions_in_sorted_order(uneven):
    loader = get_train_loader(uneven, "reference", img_size=16, batch_size=8, num_workers=0)
    for x, x2, y in take(loader, 2):
        assert x.shape == x2.shape == (8, 3, 16, 16) and y.shape == (8,) and y.dtype == torch.int64
        for images in (x, x2):  # blue is 0, red is 1; in [-1, 1]
            torch.testing.assert_close(images[:, 2].amax((1, 2)), torch.where(y == 0, 1.0, -1.0))
            torch.testing.assert_close(images[:, 0].amin((1, 2)), torch.where(y == 1, 1.0, -1.0))


def test_domains_are_balanced(uneven):
    loader = get_train_loader(uneven, "source", img_size=16, batch_size=50, num_workers=0, stop=10)
    labels = torch.cat([y for _, y in loader])
    assert len(loader) == 10 and abs(labels.float().mean() - 0.5) < 0.1


def test_second_references_differ_from_the_first(faces):
    dataset = ReferenceDataset(faces / "train", data_loader.test_transform(16))
    pairs = [dataset[0] for _ in range(20)]
    assert {label for _, _, label in pairs} == {0}
    assert len({x2.sum().item() for _, x2, _ in pairs}) > 5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
def test_batches_do_not_depend_on_workers_or_start(faces, monkeypatch):
    monkeypatch.setattr(data_loader, "usable_cores", lambda: 8)  # whatever the machine has

    def loader(which, **options):
        return get_train_loader(faces / "train", which, 16, 4, seed=3, stop=6, **options)

    for which in ("source", "reference"):
        expected = take(loader(which, num_workers=0), 6)
        torch.manual_seed(99)  # the default generator must not matter
        for num_workers in (1, 4):
            assert_same(take(loader(which, num_workers=num_workers), 6), expected)
        assert_same(take(loader(which, num_workers=0, start=4), 2), expected[4:])
    assert not torch.equal(expected[0][0], expected[1][0])
    other = next(iter(get_train_loader(faces / "train", "reference", 16, 4, num_workers=0, seed=4)))
    assert not torch.equal(other[0], expected[0][0])


def test_seeded_items_leave_the_default_generator_unchanged(faces):
    dataset = data_loader.SeededDataset(ReferenceDataset(faces / "train", data_loader.train_transform(16, 0.5)))
    state = torch.get_rng_state()
    dataset[0, 123]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_second_pass_continues_with_the_next_iterations(faces):
    def loader(**span):
        return get_train_loader(faces / "train", "source", 16, 4, num_workers=0, **span)

    twice = loader(start=0, stop=2)
    fetched = [(inputs.x, inputs.y) for inputs in take(InputFetcher(twice, mode="test"), 4)]
    assert_same(fetched, take(loader(start=0, stop=4), 4))
    assert len(loader()) == 36 // 4


def test_input_fetcher_in_training_resumes_at_any_iteration(faces):
    def fetch(start, count):
        loaders = [
            get_train_loader(faces / "train", which, 16, 4, num_workers=0, seed=1, start=start, stop=5)
            for which in ("source", "reference")
        ]
        return take(InputFetcher(*loaders, latent_dim=6, mode="train", seed=1, start=start), count)

    whole = fetch(0, 5)
    names = ["x_src", "y_src", "x_ref", "x_ref2", "y_ref", "z_trg", "z_trg2"]
    assert list(whole[0]) == names
    assert whole[0].z_trg.shape == (4, 6) and not torch.equal(whole[0].z_trg, whole[0].z_trg2)
    assert not torch.equal(whole[0].z_trg, whole[1].z_trg)
    for resumed, expected in zip(fetch(3, 2), whole[3:], strict=True):
        assert all(torch.equal(resumed[name], expected[name]) for name in names)


def test_input_fetcher_in_validation_repeats_its_inputs(faces):
    def loader():
        return get_test_loader(faces / "val", 16, batch_size=6, num_workers=0, seed=2)

    first = next(InputFetcher(loader(), mode="val"))
    again = next(InputFetcher(loader(), mode="val"))
    assert list(first) == ["x_src", "y_src", "x_ref", "y_ref"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(first.x_src) == len(first.x_ref) == 6 and not torch.equal(first.x_src, first.x_ref)
    fetcher = InputFetcher(loader(), mode="test")
    assert [list(inputs) for inputs in take(fetcher, 3)] == [["x", "y"]] * 3  # 9 images, endlessly
    assert sorted(torch.cat([y for _, y in loader()]).tolist()) == [0] * 3 + [1] * 3 + [2] * 3


def test_train_transform_crops_and_flips():
    """An image whose left half is black: about half of the samples are flipped."""
    array = np.zeros((64, 64, 3), np.uint8)
    array[:, 32:] = 255
    image = Image.fromarray(array)
    torch.manual_seed(0)
    plain = [data_loader.train_transform(32, 0.0)(image) for _ in range(100)]
    lefts = Counter(x[:, :, :16].mean().round().item() for x in plain)
    assert set(lefts) == {-1.0, 1.0} and min(lefts.values()) > 30
    assert all(x.shape == (3, 32, 32) for x in plain)
    cropped = [data_loader.train_transform(32, 1.0)(image).mean().item() for _ in range(20)]
    assert len(set(cropped)) > 10
    assert torch.equal(data_loader.test_transform(32)(image), data_loader.test_transform(32)(image))


def test_stray_files_and_hidden_folders_are_ignored(uneven):
    (uneven / "notes.txt").write_text("x")
    (uneven / ".cache").mkdir()
    (uneven / "red" / ".hidden.png").write_text("not an image")
    (uneven / "red" / "readme.md").write_text("x")
    assert folders.domain_names(uneven) == ["blue", "red"]
    assert len(data_loader.DomainFolder(uneven)) == 22


def test_sample_loader_keeps_the_order_of_images(uneven):
    plain = data_loader.test_transform(16)
    samples = [(uneven / "red" / "3.png", 7), (uneven / "blue" / "1.png", 2), (uneven / "red" / "0.png", 7)]
    batches = list(data_loader.get_sample_loader(samples, plain, batch_size=2, num_workers=0))
    assert [y.tolist() for _, y in batches] == [[7, 2], [7]]
    assert [x[:, 0].amax((1, 2)).tolist() for x, _ in batches] == [[1, -1], [1]]
    padded, _ = next(iter(data_loader.get_sample_loader(samples, data_loader.test_transform(16, "pad"), 1, 0)))
    assert (padded[0, :, 0] == 1).all() and padded[0, 1, 8].tolist() == [-1] * 16  # 40 x 30: white above


def test_unusable_folders_are_refused(uneven, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        folders.domain_names(tmp_path / "nowhere")
    with pytest.raises(UserError, match="^No sub-folders found in"):
        folders.domain_names(uneven / "red")
    (uneven / "green").mkdir()
    with pytest.raises(UserError, match=r"^No images found in .*green\."):
        get_train_loader(uneven)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_is_replaced_and_warned_about_once(uneven, num_workers, capfd):
    (uneven / "blue" / "0.png").write_text("not an image")
    loader = get_test_loader(uneven, 16, num_workers=num_workers)
    for _ in range(2):
        batches = list(loader)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert sorted(y.tolist()) == [0] * 2 + [1] * 20
    assert torch.equal(x[y == 0][0], x[y == 0][1])  # the other one of its domain
    assert capfd.readouterr().err.count("0.png as an image") == 1

    (uneven / "blue" / "1.png").write_text("not an image either")
    with pytest.raises(UserError, match=r"Cannot read .*\.png as an image") as caught:
        list(get_test_loader(uneven, 16, num_workers=num_workers))
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def test_skipped_images_are_not_in_the_data_set(uneven):
    left_out = {uneven / "red" / f"{number}.png" for number in range(19)}
    loader = get_train_loader(uneven, "reference", 16, 4, num_workers=0, stop=1, skipped_images=left_out)
    assert loader.dataset.targets == [0, 0, 1]


def test_datasets_can_be_pickled(faces):
    for which in ("source", "reference"):
        loader = get_train_loader(faces / "train", which, 16, 4, num_workers=0)
        copy = pickle.loads(pickle.dumps(loader.dataset))
        assert torch.equal(copy[0, 7][0], loader.dataset[0, 7][0])
