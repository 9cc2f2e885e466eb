"""The interpolation video: each style of a domain is interpolated to the next one, for all sources at once."""

from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.sampling.translate import translate_rows
from core.system.files import atomic_write

FRAMES_PER_SECOND = Fraction(25, 2)
GAP = 32  # black columns between the references and the sources
MAX_SIDE = 16_383  # pixels that the encoders accept
FORMATS = {  # suffix -> codec, pixels, meaning of the pixels, settings of the codec, settings of the file
    # Wide frames are large: looking 5 frames ahead in place of 40 saves a quarter of a gigabyte and no quality.
    ".mp4": ("libx264", "yuv420p", "itu709",
             {"crf": "18", "preset": "veryfast", "rc-lookahead": "5"}, {"movflags": "+faststart"}),
    ".gif": ("gif", "pal8", None, {}, {"loop": "0"}),
    ".webp": ("libwebp_anim", "yuv420p", "itu601", {"quality": "90"}, {"loop": "0"}),
}  # fmt: skip
ALPHAS = (0.0, *torch.sigmoid(torch.arange(-5, 5, 0.5)).tolist(), 1.0)  # 22 different frames of a pair
HOLD = 10  # how many times a pair's last frame is shown; at the end of the video as often again


def style_pairs(labels):
    """Indices (i, i + 1) of consecutive styles of one domain."""
    return [(i, j) for i, j in pairwise(range(len(labels))) if labels[i] == labels[j]]


def frame_count(pairs):
    """Number of frames in the video of these pairs, at 12.5 a second."""
    return len(pairs) * (len(ALPHAS) - 1 + HOLD) + HOLD


def most_sources(size):
    """Number of sources of `size` pixels that fit into a frame the encoders accept, at least 1."""
    return max(1, (MAX_SIDE - size - GAP) // size)


def video_frames(generator, sources, styles, pairs, inference_batch):
    """Yield the frames, uint8 (2H, W + 32 + S * W, 3), or without the references' window (2H, S * W, 3).

    pairs: as from `style_pairs`, not empty. Nothing is translated twice: a pair that begins with the last style of the
    previous pair reuses its translations.
    """
    above = _side_by_side(sources.shown)
    last_style, row = None, None  # the style of the last frame, and the sources in it
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
    """Two references, one above the other, scrolled by alpha: (2H, W + 32, 3)."""
    size = len(previous)
    top = int(size * (1 - alpha))
    window = np.zeros((2 * size, size + GAP, 3), np.uint8)
    window[top:, :size] = np.concatenate([previous, following])[: 2 * size - top]
    return window


def write_video(path, frames):
    """Encode uint8 frames (H, W, 3) of even sides, 12.5 a second, in the suffix's format. Raises UserError."""
    import av  # slow to import, and training never needs it

    codec, pixels, colours, settings, file_settings = FORMATS[Path(path).suffix]
    with atomic_write(path) as temporary, av.open(str(temporary.absolute()), "w", options=file_settings) as container:
        stream = container.add_stream(codec, rate=FRAMES_PER_SECOND, options=settings)
        stream.pix_fmt = pixels
        if codec == "libx264":  # else each player guesses what the colours mean
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
        last = None
        for number, array in enumerate(frames):
            if number == 0:
                stream.height, stream.width = array.shape[:2]
            if array is not last and pixels == "pal8":
                frame = av.VideoFrame.from_ndarray(_with_palette(array), format=pixels)
            elif array is not last:
                rgb = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame = rgb.reformat(format=pixels, dst_colorspace=colours)
            frame.pts, frame.time_base, last = number, 1 / FRAMES_PER_SECOND, array
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _with_palette(array):
    """An image in its own 256 colours: indices (H, W), colours (256, 4) as alpha, red, green, blue."""
    some = np.ascontiguousarray(array[::3, ::3])  # every ninth pixel gives as good a palette in a ninth of the time
    reduced = Image.fromarray(some).quantize(256)
    colours = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(colours), 1:] = colours
    # Dithering would make still parts flicker.
    return np.asarray(Image.fromarray(array).quantize(palette=reduced, dither=Image.Dither.NONE)), palette


def _side_by_side(images):
    """(S, H, W, 3) -> (H, S * W, 3)"""
    return np.concatenate(list(images), axis=1)
