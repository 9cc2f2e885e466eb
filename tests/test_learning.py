"""Does it learn? Coloured shapes take on the style of their references (five minutes on two cores)."""

import numpy as np
import pytest

import main
from core.images import read_rgb
from data import demo
from tests.command import as_flags


def score(path):
    """Share of translations whose background is nearer to the reference's colour than to the source's.

    path: a grid of 64 px cells, sources on top and references on the left.
    """
    array = np.asarray(read_rgb(path)).astype(float)
    rows, columns = array.shape[0] // 64, array.shape[1] // 64
    cells = array.reshape(rows, 64, columns, 64, 3).swapaxes(1, 2)
    backgrounds = np.median(cells[:, :, 4:12], (2, 3))  # (rows, columns, 3)
    x_fake, x_src, x_ref = backgrounds[1:, 1:], backgrounds[:1, 1:], backgrounds[1:, :1]
    nearer = np.abs(x_fake - x_ref).sum(-1) < np.abs(x_fake - x_src).sum(-1)
    distinct = np.abs(x_src - x_ref).sum(-1) > 100  # of like colours nothing can be said
    return nearer[distinct].mean()


@pytest.mark.slow
def test_shapes_take_on_the_style_of_their_references(tmp_path):
    demo.make(tmp_path, size=64, train=200, val=8)
    folders = {
        "train_img_dir": tmp_path / "train",
        "val_img_dir": tmp_path / "val",
        "checkpoint_dir": tmp_path,
        "sample_dir": tmp_path,
    }
    flags = (
        "--img_size 64 --channel_base 512 --max_conv_dim 64 --hidden_dim 128 --w_hpf 0 --num_workers 0 "
        "--total_iters 800 --ds_iter 800 --lr 1.5e-3 --f_lr 1.5e-4 --ema_decay 0.99 --sample_every 800 "
        "--val_batch_size 12 --num_outs_per_domain 2 --print_every 100"
    )
    paths = as_flags(folders)
    assert main.main(["--mode", "train", *flags.split(), *paths]) == 0
    # Measured: 0.86 and 0.97 in two runs that differ in rounding; about 0.55 before it learns.
    assert score(tmp_path / "000800_reference.jpg") > 0.75
