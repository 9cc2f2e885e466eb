"""Interpolation videos: all sources move from each style of a domain to the next."""

from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.sampling.sound import Sound
from core.sampling.translate import translate_rows
from core.system.errors import UserError
from core.system.files import atomic_write

FRAMES_PER_SECOND = Fraction(25, 2)
GAP = 32  # black columns between the references and the sources
GIF_RATE = 50  # frames per second; browsers show frames of less than 20 ms for longer
MAX_SIDE = 16_383  # pixels; the limit of the encoders
FORMATS = {  # suffix -> codec, pixel format, colour space, options of the codec, options of the container
    # A look-ahead of 5 frames instead of 40 saves a quarter of a gigabyte for wide frames, at the same quality.
    ".mp4": ("libx264", "yuv420p", "itu709",
             {"crf": "18", "preset": "veryfast", "rc-lookahead": "5"}, {"movflags": "+faststart"}),
    ".gif": ("gif", "pal8", None, {}, {"loop": "0"}),
    ".webp": ("libwebp_anim", "yuv420p", "itu601", {"quality": "90"}, {"loop": "0"}),
}  # fmt: skip
ALPHAS = (0.0, *torch.sigmoid(torch.arange(-5, 5, 0.5)).tolist(), 1.0)  # 22 different frames per pair
HOLD = 10  # repetitions of the last frame of a pair; the video repeats its very last frame this often again


def style_pairs(labels):
    """Return indices (i, i + 1) of consecutive styles of the same domain."""
    return [(i, j) for i, j in pairwise(range(len(labels))) if labels[i] == labels[j]]


def frame_count(pairs):
    """Return the number of frames in the video of these pairs, at 12.5 frames per second."""
    return len(pairs) * (len(ALPHAS) - 1 + HOLD) + HOLD


def most_sources(size):
    """Return how many sources of `size` pixels fit into a frame that the encoders accept, at least 1."""
    return max(1, (MAX_SIDE - size - GAP) // size)


def video_frames(generator, sources, styles, pairs, inference_batch):
    """Yield frames, uint8 (2H, W + 32 + S * W, 3) with a window of references or (2H, S * W, 3) without.

    pairs: from `style_pairs`, not empty. A pair that begins with the last style of the previous pair reuses its images.
    """
    above = _side_by_side(sources.shown)
    last_style, row = None, None  # style of the last frame, and its translated sources
    for previous, following in pairs:
        codes = [torch.lerp(styles.codes[previous], styles.codes[following], alpha) for alpha in ALPHAS]
        reused = [row] if last_style == previous else []
        rows = chain(reused, translate_rows(generator, sources, codes[len(reused) :], inference_batch))
        for alpha, row in zip(ALPHAS, rows, strict=True):
            frame = np.concatenate([above, _side_by_side(row)])  # (2H, S * W, 3)
            if styles.shown is not None:
                window = _window(styles.shown[previous], styles.shown[following], alpha)
                frame = np.concatenate([window, frame], axis=1)
            yield from [frame] * (HOLD if alpha == 1 else 1)
        last_style = following
    yield from [frame] * HOLD


def _window(previous, following, alpha):
    """Return two references, one above the other, scrolled by alpha: (2H, W + 32, 3)."""
    size = len(previous)
    top = int(size * (1 - alpha))
    window = np.zeros((2 * size, size + GAP, 3), np.uint8)
    window[top:, :size] = np.concatenate([previous, following])[: 2 * size - top]
    return window


def write_video(path, frames):
    """Encode uint8 frames (H, W, 3) at 12.5 per second in the suffix's format. Raises UserError."""
    with video_file(path) as write:
        for number, array in enumerate(frames):
            write(array, number / FRAMES_PER_SECOND)


@contextmanager
def video_file(path, rate=FRAMES_PER_SECOND, time_base=1 / FRAMES_PER_SECOND, sound=None):
    """Yield write(array, time, duration=None), which appends a uint8 frame (H, W, 3) to a video in the suffix's format.
    Transparency, (H, W, 4), is dropped.

    rate: about, in frames per second. time_base: the unit of times and durations, which are in seconds, both Fractions.
    sound: the Clip whose sound is copied. A side of odd length grows by a pixel where the format needs it. Raises
    UserError.
    """
    import av  # slow to import and not needed for training

    codec, pixels, colours, settings, file_settings = FORMATS[Path(path).suffix]
    if codec == "gif" and rate > GIF_RATE:
        problem = f"{float(rate):.4g} frames per second; GIF has at most {GIF_RATE}"
        raise UserError(f"Cannot write {path} ({problem}). Use --video_format mp4 or webp.")
    with atomic_write(path) as temporary, av.open(str(temporary.absolute()), "w", options=file_settings) as container:
        stream = container.add_stream(codec, rate=rate, options=settings)
        stream.pix_fmt, context = pixels, stream.codec_context
        context.time_base = time_base
        context.flags |= av.codec.context.Flags.frame_duration  # The last frame has no successor to end it.
        if codec == "libx264":  # without these tags each player guesses the colour space
            context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
        copy_sound = (lambda until=None: None) if sound is None else Sound(sound, container).copy
        last = frame = None

        def write(array, time, duration=None):
            nonlocal last, frame
            array = array if array.shape[2] == 3 else array[..., :3]
            if last is None:
                stream.height, stream.width = (side + side % 2 * (codec == "libx264") for side in array.shape[:2])
            elif array.shape != last.shape:  # The frames of a clip may change their size.
                array = np.asarray(Image.fromarray(array).resize(last.shape[1::-1]))
            if array is not last and pixels == "pal8":
                frame = av.VideoFrame.from_ndarray(_with_palette(array), format=pixels)
            elif array is not last:
                missing = (0, stream.height - array.shape[0]), (0, stream.width - array.shape[1]), (0, 0)
                rgb = av.VideoFrame.from_ndarray(np.pad(array, missing, "edge"), format="rgb24")
                frame = rgb.reformat(format=pixels, dst_colorspace=colours)
            frame.pts, frame.time_base, last = round(time / time_base), time_base, array
            frame.duration = round(duration / time_base) if duration else 1
            copy_sound(time)
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode())
        copy_sound()


def _with_palette(array):
    """Reduce an image to its own 256 colours: indices (H, W), palette (256, 4) in alpha, red, green, blue."""
    some = np.ascontiguousarray(array[::3, ::3])  # a ninth of the pixels gives an equally good palette
    reduced = Image.fromarray(some).quantize(256)
    colours = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(colours), 1:] = colours
    # Dithering would make static parts flicker.
    return np.asarray(Image.fromarray(array).quantize(palette=reduced, dither=Image.Dither.NONE)), palette


def _side_by_side(images):
    """(S, H, W, 3) -> (H, S * W, 3)"""
    return np.concatenate(list(images), axis=1)
