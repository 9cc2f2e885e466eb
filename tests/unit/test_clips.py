"""Reading clips: their frames, times, colours and sound, and writing them again."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from core.images.clips import BadClip, container_of, open_clip
from core.sampling.video import video_file
from core.system.errors import UserError
from tests.clips import TICK, colour_of, make_clip, sound_of

VARIABLE = (20, 35, 20, 61)


def copied(path, to):
    """Write a clip again, unchanged, with its sound."""
    clip = open_clip(path)
    with video_file(to, clip.rate, clip.time_base, clip if clip.has_sound else None) as write:
        for frame in clip.frames():
            write(np.asarray(frame.image), frame.time, frame.duration)
    return open_clip(to)


def times(clip):
    return [(frame.time, frame.duration) for frame in clip.frames()]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".ts", ".webm"])
def test_all_frames_are_read_in_order_and_upright(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    make_clip(path, sound=None)
    clip = open_clip(path)
    frames = list(clip.frames())
    assert len(frames) == 30 and clip.size == (96, 64) and not clip.has_sound
    for number, frame in enumerate(frames):
        assert frame.time == pytest.approx(number * 20 * TICK, abs=0.002)
        pixels = np.asarray(frame.image).astype(int)
        assert np.abs(pixels[32:, 48:] - colour_of(number)).mean() < 6
        assert np.abs(pixels[:12, :20] - [255, 0, 0]).mean() < 12


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_are_turned_by_their_rotation(rotation, tmp_path):
    """Counterclockwise, as players do. The corner of the stored frame is at the top left."""
    make_clip(tmp_path / "clip.mp4", count=2, rotation=rotation)
    clip = open_clip(tmp_path / "clip.mp4")
    assert clip.size == ((96, 64) if rotation == 180 else (64, 96))
    image = np.asarray(next(clip.frames()).image).astype(int)
    corner = {90: image[-8:, :8], 180: image[-8:, -8:], -90: image[:8, -8:]}[rotation]
    assert np.abs(corner - [255, 0, 0]).mean() < 12


@pytest.mark.parametrize("steps", [(20,), VARIABLE])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_copy_has_the_same_frames_times_and_sound(suffix, steps, tmp_path):
    path = tmp_path / f"clip{suffix}"
    make_clip(path, steps=steps)
    copy = copied(path, tmp_path / "copy.mp4")
    assert [time for time, _ in times(copy)] == [time for time, _ in times(open_clip(path))]
    (_, duration), (_, expected) = times(copy)[-1], times(open_clip(path))[-1]
    assert duration == pytest.approx(expected, abs=0.0011)
    assert np.array_equal(sound_of(tmp_path / "copy.mp4"), sound_of(path)) and len(sound_of(path)) > 40_000
    frames = zip(open_clip(path).frames(), copy.frames(), strict=True)
    assert max(np.abs(np.asarray(a.image, int) - np.asarray(b.image)).mean() for a, b in frames) < 3


def test_a_late_start_moves_picture_and_sound_alike(tmp_path):
    """MPEG-TS recordings begin at any time."""
    make_clip(tmp_path / "clip.ts", start=6000)  # 10 seconds
    clip = open_clip(tmp_path / "clip.ts")
    assert clip.start > 9 and times(clip)[0][0] < 0.1
    copy = copied(tmp_path / "clip.ts", tmp_path / "copy.mp4")
    assert len(times(copy)) == 30 and times(copy)[0][0] < 0.1
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert next(container.decode(audio=0)).time < 0.1
    assert np.array_equal(sound_of(tmp_path / "copy.mp4"), sound_of(tmp_path / "clip.ts"))


@pytest.mark.parametrize("rate", [44100, 192_000])
def test_sound_that_players_do_not_expect_becomes_aac(rate, tmp_path):
    make_clip(tmp_path / "clip.avi", sound="pcm_s16le", sound_rate=rate)
    copied(tmp_path / "clip.avi", tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        new_rate = container.streams.audio[0].rate
    assert new_rate == min(rate, 96_000)  # the highest of AAC
    stored, found = sound_of(tmp_path / "clip.avi") / 32768, sound_of(tmp_path / "copy.mp4")
    length = round(len(stored) * new_rate / rate)
    assert length <= len(found) <= length + 2048, "sound is missing at the end"
    for part in (slice(length // 10, length), slice(length - 500, length)):
        loudness = np.sqrt((found[part] ** 2).mean())
        assert loudness == pytest.approx(np.sqrt((stored[len(stored) // 10 :] ** 2).mean()), rel=0.05)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animated_images_are_clips(suffix, tmp_path):
    """Their durations may vary; transparent pixels become white, and a duration of 0 is what browsers make of it."""
    images = [Image.new("RGBA", (50, 40), (number * 40, 0, 0, 255 if number else 0)) for number in range(4)]
    durations, path = [50, 100, 0, 30], tmp_path / f"clip{suffix}"
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, disposal=2, lossless=True)
    clip = open_clip(path)
    assert (clip.count, clip.size) == (4, (50, 40))
    assert [duration for _, duration in times(clip)] == [Fraction(ms or 100, 1000) for ms in durations]
    assert [time for time, _ in times(clip)] == [0, Fraction(1, 20), Fraction(3, 20), Fraction(1, 4)]
    assert np.asarray(next(clip.frames()).image).min() == 255
    copy = copied(path, tmp_path / "copy.webp")
    assert times(copy)[:-1] == times(clip)[:-1]  # The encoder chooses the duration of the last frame.


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_videos_drop_transparency(suffix, tmp_path):
    with video_file(tmp_path / f"clip{suffix}") as write:
        write(np.full((32, 48, 4), 90, np.uint8), Fraction(0))
    (frame,) = open_clip(tmp_path / f"clip{suffix}").frames()
    assert abs(np.asarray(frame.image, int) - 90).max() < 4


def test_a_video_of_odd_size_grows_by_a_pixel(tmp_path):
    with video_file(tmp_path / "odd.mp4") as write:
        write(np.full((35, 47, 3), 90, np.uint8), Fraction(0))
    (frame,) = open_clip(tmp_path / "odd.mp4").frames()
    assert frame.image.size == (48, 36) and abs(int(np.asarray(frame.image)[-1, -1, 0]) - 90) < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".webp"])
def test_clips_that_end_too_early_are_broken(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    if suffix == ".webp":
        images = [Image.effect_noise((50, 40), 90) for _ in range(20)]
        images[0].save(path, save_all=True, append_images=images[1:])
    else:
        make_clip(tmp_path / f"whole{suffix}", count=120, sound=None)
        copied(tmp_path / f"whole{suffix}", path) if suffix == ".mp4" else (tmp_path / f"whole{suffix}").rename(path)
    end = path.stat().st_size // 2
    if suffix == ".mp4":  # with its table of frames at the beginning, cut between two frames
        with container_of(path) as container:
            end = container.streams.video[0].index_entries[40].pos
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(BadClip, match=r"^Cannot read .* as (a clip \((damaged after|the file ends)|an image \()"):
        list(open_clip(path).frames())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.gif", "clip.webp", "clip"])
def test_what_is_no_clip_is_one_sentence(name, tmp_path):
    for content in (b"no clip", b"", None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        else:
            (tmp_path / name).unlink()
        with pytest.raises(BadClip, match=r"^Cannot read .* as (a clip|an image) \(.*\)\. "):
            open_clip(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".webm"])
def test_slow_clips_are_whole(suffix, tmp_path):
    """A frame for two seconds each."""
    make_clip(tmp_path / f"clip{suffix}", count=3, steps=(1200,), sound=None)
    assert len(times(open_clip(tmp_path / f"clip{suffix}"))) == 3


def test_frames_that_change_their_size_get_that_of_the_first(tmp_path):
    with video_file(tmp_path / "clip.mp4") as write:
        for number, size in enumerate([(32, 48), (64, 96), (16, 16)]):
            write(np.full((*size, 3), 90, np.uint8), Fraction(number))
    assert [frame.image.size for frame in open_clip(tmp_path / "clip.mp4").frames()] == [(48, 32)] * 3


def test_gif_has_at_most_50_frames_per_second(tmp_path):
    sentence = r"\(60 frames per second; GIF has at most 50\)"
    with pytest.raises(UserError, match=sentence), video_file(tmp_path / "clip.gif", Fraction(60)):
        pass
    assert not list(tmp_path.iterdir())


def test_pixels_become_square(tmp_path):
    make_clip(tmp_path / "clip.mp4", count=2, pixel_ratio=Fraction(16, 9))
    assert open_clip(tmp_path / "clip.mp4").size == (171, 64)


def test_sound_alone_is_no_clip(tmp_path):
    make_clip(tmp_path / "clip.mp4", count=2)
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(BadClip, match="it has no video stream"):
        open_clip(tmp_path / "sound.mp4")
