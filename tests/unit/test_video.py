import os

import av
import numpy as np
import pytest
import torch
from PIL import Image

import main
from core.images.io import to_uint8
from core.model import build_model
from core.sampling import translate, video
from core.system.errors import UserError
from core.system.memory import MicroBatch
from tests.command import NARROW


@pytest.fixture(scope="module")
def scene():
    """A generator, three sources and references in domains of 2, 1 and 3 images."""
    nets = build_model(main.parse_args(["--mode", "sample", *NARROW.split(), "--num_domains", "3"]))[1]
    torch.manual_seed(0)
    x_src, x_ref = torch.rand(3, 3, 32, 32) * 2 - 1, torch.rand(6, 3, 32, 32) * 2 - 1
    sources = translate.read_sources(nets, [x_src], MicroBatch(3, 3))
    y_ref = torch.tensor([0, 0, 1, 2, 2, 2])
    references = translate.read_references(nets.style_encoder, [(x_ref, y_ref)])
    return nets.generator, x_src, sources, references


@pytest.fixture(scope="module")
def frames(scene):
    generator, _, sources, references = scene
    pairs = video.style_pairs(references.labels)
    return list(video.video_frames(generator, sources, references, pairs, MicroBatch(2, 2)))


def test_pairs_stay_within_a_domain():
    assert video.style_pairs([0, 0, 1, 2, 2, 2]) == [(0, 1), (3, 4), (4, 5)]
    assert video.style_pairs([0, 1, 2]) == []
    afhq = [0] * 10 + [1] * 8 + [2] * 10
    assert video.frame_count(video.style_pairs(afhq)) == 785


def test_alphas_follow_a_sigmoid():
    assert len(video.ALPHAS) == 22 and video.ALPHAS[0] == 0 and video.ALPHAS[-1] == 1
    assert video.ALPHAS[1] == pytest.approx(1 / (1 + np.exp(5)), rel=1e-6)
    assert video.ALPHAS[20] == pytest.approx(1 / (1 + np.exp(-4.5)), rel=1e-6)


def test_each_different_frame_is_computed_once(scene, frames, monkeypatch):
    assert len(frames) == 3 * 31 + 10
    assert len({id(frame) for frame in frames}) == 3 * 22
    assert all(frame.shape == (64, 32 + 32 + 3 * 32, 3) for frame in frames)
    assert all(frame is frames[-1] for frame in frames[-20:])
    drawn = []
    generator, _, sources, references = scene
    render = generator.render
    monkeypatch.setattr(generator, "render", lambda content, s: drawn.append(s) or render(content, s))
    pairs = video.style_pairs(references.labels)
    again = list(video.video_frames(generator, sources, references, pairs, MicroBatch(3, 3)))
    assert len(drawn) == 22 + 22 + 21  # the third pair begins where the second one ended
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(again, frames, strict=True))


def test_videos_of_random_styles_have_no_reference_window(scene):
    generator, x_src, sources, references = scene
    styles = translate.Styles(codes=references.codes[:2], labels=[0, 0])
    frames = list(video.video_frames(generator, sources, styles, [(0, 1)], MicroBatch(3, 3)))
    assert len(frames) == 41 and frames[0].shape == (64, 3 * 32, 3)
    expected = to_uint8(generator(x_src, styles.codes[1].expand(3, -1)))
    assert np.abs(frames[-1][32:].reshape(32, 3, 32, 3).swapaxes(0, 1).astype(int) - expected).max() <= 1


@torch.no_grad()
def test_frames_show_the_outputs_of_the_networks(scene, frames):
    generator, x_src, sources, references = scene
    alpha = 0.5  # sigmoid(0): the eleventh step of the second pair, references 3 and 4
    frame = frames[31 + 11]
    assert (frame[:16, :64] == 0).all() and (frame[:, 32:64] == 0).all()
    scroll = np.concatenate([references.shown[3], references.shown[4]])
    assert np.array_equal(frame[16:, :32], scroll[:48])
    assert np.array_equal(frame[:32, 64:], np.concatenate(list(sources.shown), axis=1))
    style = torch.lerp(references.codes[3], references.codes[4], alpha)
    expected = to_uint8(generator(x_src, style.expand(3, -1)))
    found = frame[32:, 64:].reshape(32, 3, 32, 3).swapaxes(0, 1)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_a_pair_starts_at_the_last_frame_of_the_pair_before(frames):
    assert np.array_equal(frames[2 * 31][32:, 64:], frames[2 * 31 - 1][32:, 64:])


def test_mp4_round_trip(frames, tmp_path):
    video.write_video(tmp_path / "video.mp4", iter(frames))
    with av.open(tmp_path / "video.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (160, 64, video.FRAMES_PER_SECOND)
        assert float(stream.duration * stream.time_base) == pytest.approx(len(frames) / 12.5)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == len(frames)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
    # 4:2:0 halves the colour's resolution, so compare blocks of 8 x 8 of these noisy pictures.
    blocks = [np.stack(images).reshape(-1, 8, 8, 20, 8, 3).mean((2, 4)) for images in (decoded, frames)]
    assert np.abs(blocks[0] - blocks[1]).mean() < 3


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_gif_and_webp_round_trip(frames, tmp_path, suffix):
    path = tmp_path / f"video{suffix}"
    video.write_video(path, iter(frames))
    with Image.open(path) as image:
        assert image.size == (160, 64) and image.info["loop"] == 0
        decoded, milliseconds = [], []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            decoded.append(np.asarray(image.convert("RGB")))
            milliseconds.append(image.info["duration"])
    assert sum(milliseconds) == len(frames) * 80
    shown = [image for image, time in zip(decoded, milliseconds, strict=True) for _ in range(round(time / 80))]
    blocks = [np.stack(images).reshape(-1, 8, 8, 20, 8, 3).mean((2, 4)) for images in (shown, frames)]
    assert np.abs(blocks[0] - blocks[1]).mean() < 4


def test_a_colon_in_the_path_is_not_a_protocol(frames, tmp_path, monkeypatch):
    if os.name == "nt":
        pytest.skip("not a name on Windows")
    monkeypatch.chdir(tmp_path)
    video.write_video("12:30/video.mp4", iter(frames[:2]))
    assert (tmp_path / "12:30" / "video.mp4").exists()


def test_a_failed_video_leaves_no_file(frames, tmp_path):
    def failing():
        yield frames[0]
        raise UserError("stopped")

    with pytest.raises(UserError, match="stopped"):
        video.write_video(tmp_path / "video.mp4", failing())
    assert not list(tmp_path.iterdir())


def test_most_sources_follows_from_the_largest_frame():
    assert video.most_sources(256) == 62 and video.MAX_SIDE >= 256 + 32 + 62 * 256
    assert video.most_sources(8192) == video.most_sources(16384) == 1
