"""--mode align."""

import numpy as np
import torch

from core import wing
from tests import golden
from tests.command import call


def test_align_writes_every_readable_face_and_a_contact_sheet(photographs, mean_face, tmp_path, capsys):
    """FAN has random weights, whose heat maps are large everywhere, so every image counts as a face."""
    torch.save({"state_dict": golden.fill("fan", wing.FAN()).state_dict()}, tmp_path / "wing.ckpt")
    np.savez(tmp_path / "mean.npz", mean=mean_face)
    where = {"inp_dir": photographs, "out_dir": tmp_path / "out", "wing_path": tmp_path / "wing.ckpt"}
    more = {"lm_path": tmp_path / "mean.npz", "contact_sheet": tmp_path / "sheet.jpg"}
    assert call("align", "--device cpu --img_size 64", **where, **more) == 0
    said = capsys.readouterr()
    assert "broken.png as an image (" in said.err and "skipped 1 image" in said.out
    assert len(list((tmp_path / "out").rglob("*.*"))) == 4 and (tmp_path / "sheet.jpg").is_file()
