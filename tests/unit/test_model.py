import pytest
import torch

import main
from core.layers import AdaIN
from core.model import Discriminator, Generator, MappingNetwork, StyleEncoder, build_model
from tests import golden

Y_ORG, Y_TRG = torch.tensor([0, 2]), torch.tensor([1, 0])


def networks(img_size, num_domains, w_hpf=0):
    """The four networks with golden weights."""
    return (
        golden.fill("generator", Generator(img_size, w_hpf=w_hpf)),
        golden.fill("mapping_network", MappingNetwork(num_domains=num_domains)),
        golden.fill("style_encoder", StyleEncoder(img_size, num_domains=num_domains)),
        golden.fill("discriminator", Discriminator(img_size, num_domains)),
    )


def assert_golden(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_networks_at_64_px_equal_golden_outputs():
    G, F, E, D = networks(64, 3)
    expected = golden.read("networks_64.npz")
    x = golden.image("x")
    style = F(golden.code("z"), Y_TRG)
    assert_golden(style, expected["style_latent"])
    assert_golden(E(golden.image("x_ref"), Y_TRG), expected["style_ref"])
    assert_golden(G(x, style), expected["fake"])
    assert_golden(D(x, Y_ORG), expected["logits"])


@torch.no_grad()
def test_generator_with_masks_at_64_px_equals_golden_output():
    G, F, _, _ = networks(64, 2, w_hpf=1)
    masks = [golden.image(f"mask{i}", 2, 1, 64, 64).abs() for i in range(2)]
    fake = G(golden.image("x"), F(golden.code("z"), Y_TRG), masks)
    assert_golden(fake, golden.read("generator_64_masked.npz")["fake"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("file", "num_domains", "w_hpf"), [("networks_256.npz", 3, 0), ("networks_256_masked.npz", 2, 1)]
)
def test_networks_at_256_px_equal_golden_outputs(file, num_domains, w_hpf):
    G, F, E, D = networks(256, num_domains, w_hpf)
    expected = golden.read(file)
    x, y = golden.image("x256", 1, 3, 256, 256), torch.tensor([1])
    masks = [golden.image(f"mask{i}_256", 1, 1, 256, 256).abs() for i in range(2)] if w_hpf else None
    style = F(golden.code("z256", 1, 16), y)
    fake = G(x, style, masks)
    assert_golden(style, expected["style_latent"])
    assert_golden(fake[:, :, ::8, ::8], expected["fake_every8"])
    assert_golden(fake.mean(), expected["fake_mean"])
    assert_golden(fake.std(), expected["fake_std"])
    assert_golden(E(x, y), expected["style_ref"])
    assert_golden(D(x, y), expected["logits"])


@pytest.mark.parametrize(("data_set", "num_domains", "w_hpf"), [("afhq", 3, 0), ("celeba_hq", 2, 1)])
def test_state_dict_keys_and_shapes_equal_the_reference(data_set, num_domains, w_hpf):
    expected = golden.read("state_dict_keys.json")[data_set]
    args = main.parse_args(["--mode", "train", "--num_domains", str(num_domains), "--w_hpf", str(w_hpf)])
    with torch.device("meta"):
        nets, nets_ema = build_model(args)
    found = {name: {k: list(v.shape) for k, v in net.state_dict().items()} for name, net in nets.items()}
    assert found == expected
    assert list(nets_ema) == ["generator", "mapping_network", "style_encoder", *["fan"] * w_hpf]


@pytest.fixture(scope="module")
def small():
    """A generator with masks in float64, and inputs for it."""
    torch.manual_seed(0)
    G = Generator(64, style_dim=8, max_conv_dim=16, w_hpf=1, channel_base=256).double()
    x, s = torch.randn(3, 3, 64, 64).double(), torch.randn(3, 8).double()
    masks = [torch.rand(3, 1, 64, 64).double() for _ in range(2)]
    return G, x, s, masks


@torch.no_grad()
def test_rendering_shared_content_equals_whole_passes(small):
    """One image in three styles from one content equals three whole passes."""
    G, x, s, masks = small
    content = G.content(x[:1], [mask[:1] for mask in masks])
    expected = torch.cat([G(x[:1], s[i : i + 1], [mask[:1] for mask in masks]) for i in range(3)])
    torch.testing.assert_close(G.render(content, s), expected)


@torch.no_grad()
def test_split_and_joined_content_renders_the_same(small):
    G, x, s, masks = small
    content = G.content(x, masks)
    joined = type(content).join([content[:1], content[1:]])
    assert torch.equal(G.render(joined, s), G.render(content, s))
    torch.testing.assert_close(G.render(content[1:], s[1:]), G(x, s, masks)[1:])


@torch.no_grad()
def test_masks_add_the_source_and_empty_masks_add_nothing(small):
    G, x, s, masks = small
    with_masks, without = G(x, s, masks), G(x, s)
    nothing = G(x, s, [torch.zeros_like(mask) for mask in masks])
    assert torch.equal(nothing, without)
    assert (with_masks - without).abs().mean() > 1e-3


@pytest.mark.parametrize(("images", "styles"), [(3, 3), (3, 1), (1, 3)])
def test_adain_equals_its_formula(images, styles):
    """(1 + gamma) * normalised + beta, and its gradients; either side may be one for all."""
    torch.manual_seed(0)
    adain = AdaIN(style_dim=4, num_features=5).double()
    x = torch.randn(images, 5, 6, 7).double().requires_grad_()
    s = torch.randn(styles, 4).double().requires_grad_()
    gamma, beta = adain.fc(s)[:, :, None, None].chunk(2, dim=1)
    normalised = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    found, expected = adain(x, s), (1 + gamma) * normalised + beta
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((out * weights).sum(), (x, s, adain.fc.weight)) for out in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_initialisation_follows_he_and_the_seed(parse):
    nets, nets_ema = build_model(parse("train", "--seed 5"))
    for network in nets.values():
        for name, p in network.named_parameters():
            if name.endswith("bias"):
                assert not p.any(), name
    weight = nets.mapping_network.shared[2].weight  # 32 x 32
    assert abs(weight.std().item() / (2 / weight.shape[1]) ** 0.5 - 1) < 0.1
    for name, network in nets_ema.items():
        own = nets[name].state_dict()
        assert all(torch.equal(value, own[key]) for key, value in network.state_dict().items())
        assert not any(p.requires_grad for p in network.parameters())
    again, _ = build_model(parse("train", "--seed 5"))
    other, _ = build_model(parse("train", "--seed 6"))
    assert torch.equal(again.generator.from_rgb.weight, nets.generator.from_rgb.weight)
    assert not torch.equal(other.generator.from_rgb.weight, nets.generator.from_rgb.weight)


def test_hidden_dim_is_honoured():
    assert MappingNetwork(hidden_dim=48).unshared[1][6].weight.shape == (64, 48)
