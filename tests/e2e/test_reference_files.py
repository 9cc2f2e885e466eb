"""Files of the reference implementation are read without flags, and give its images."""

from itertools import product

import pytest
import torch

from tests import golden
from tests.reference_files import load, networks, save_as_reference


@pytest.mark.parametrize("img_size", [128, 256, 512])
def test_network_settings_follow_from_tensor_shapes(img_size, tmp_path):
    """With narrow networks, since shapes are read in the same way at any width."""
    for num_domains, w_hpf in product((2, 3, 10), (0, 1)):
        flags = ("--img_size", img_size, "--num_domains", num_domains, "--w_hpf", w_hpf)
        nets = networks(*flags, "--channel_base", 2048, "--max_conv_dim", 24)
        for prefix, with_filter in product(("", "module."), (True, False)):
            save_as_reference(nets, tmp_path, prefix, with_filter)
            found = load(tmp_path)
            for name, net in nets.items():
                state = found[name].state_dict()
                assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize(
    ("file", "num_domains", "w_hpf", "prefix", "with_filter"),
    [("networks_256.npz", 3, 0, "module.", True), ("networks_256_masked.npz", 2, 1, "", False)],
)
def test_reference_files_give_golden_outputs(file, num_domains, w_hpf, prefix, with_filter, tmp_path):
    nets = networks("--num_domains", num_domains, "--w_hpf", w_hpf)
    for name, net in nets.items():
        golden.fill(name, net)
    save_as_reference(nets, tmp_path, prefix, with_filter)
    found, expected = load(tmp_path), golden.read(file)
    x, y = golden.image("x256", 1, 3, 256, 256), torch.tensor([1])
    masks = [golden.image(f"mask{i}_256", 1, 1, 256, 256).abs() for i in range(2)] if w_hpf else None
    style = found.mapping_network(golden.code("z256", 1, 16), y)
    fake = found.generator(x, style, masks)[:, :, ::8, ::8]
    torch.testing.assert_close(fake, expected["fake_every8"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.style_encoder(x, y), expected["style_ref"], atol=1e-4, rtol=0)
