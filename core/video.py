"""The interpolation video: references of a domain melt into one another, all sources follow.

Frames are made one at a time and go straight to the encoder, so memory does not grow with length.
"""

from fractions import Fraction
from itertools import chain, pairwise

import numpy as np
import torch

from core.files import replacing
from core.runtime import chunks
from core.sampling import translate_rows

FRAMES_PER_SECOND = Fraction(25, 2)
GAP = 32  # black columns between the references and the sources
MAX_SIDE = 16_384  # what the encoder takes
# Wide frames are large: looking 5 frames ahead in place of 40 saves a quarter of a gigabyte and no quality.
ENCODER = {"crf": "18", "preset": "veryfast", "rc-lookahead": "5"}
ALPHAS = (0.0, *torch.sigmoid(torch.arange(-5, 5, 0.5)).tolist(), 1.0)  # 22 different frames of a pair
HOLD = 10  # frames for which a pair's last one stands, and at the end once more


def reference_pairs(labels):
    """Indices (i, i + 1) of consecutive references of one domain."""
    return [(i, j) for i, j in pairwise(range(len(labels))) if labels[i] == labels[j]]


def frame_count(pairs):
    return len(pairs) * (len(ALPHAS) - 1 + HOLD) + HOLD


def video_pages(num_sources, size):
    """Slices of the sources whose frames the encoder takes: one but for very many sources."""
    return chunks(num_sources, max(1, (MAX_SIDE - size - GAP) // size))


def reference_frames(generator, sources, references, pairs, batch):
    """Yield the frames, uint8 (2H, W + 32 + S * W, 3). A frame that stands is computed once.

    pairs: as from `reference_pairs`, not empty.
    """
    size = sources.shown.shape[1]
    above = _side_by_side(sources.shown)
    for previous, following in pairs:
        scroll = np.concatenate([references.shown[previous], references.shown[following]])  # (2H, W, 3)
        styles = [torch.lerp(references.styles[previous], references.styles[following], alpha) for alpha in ALPHAS]
        rows = translate_rows(generator, sources, styles, batch)
        for alpha, row in zip(ALPHAS, rows, strict=True):
            top = int(size * (1 - alpha))
            window = np.zeros((2 * size, size + GAP, 3), np.uint8)
            window[top:, :size] = scroll[: 2 * size - top]
            translated = np.concatenate([above, _side_by_side(row)])  # (2H, S * W, 3)
            frame = np.concatenate([window, translated], axis=1)
            yield from [frame] * (HOLD if alpha == 1 else 1)
    yield from [frame] * HOLD


def write_video(path, frames):
    """Encode uint8 frames (H, W, 3) of even sides as H.264, yuv420p, 12.5 frames a second.

    The file takes its name once it is whole.
    """
    import av  # here, since training never needs it

    with replacing(path) as temporary, av.open(temporary, "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=ENCODER)
        stream.pix_fmt = "yuv420p"
        bt709 = av.video.reformatter.Colorspace.ITU709
        codec = stream.codec_context  # untagged colours would be left to each player's guess
        codec.color_primaries = codec.color_trc = codec.colorspace = codec.color_range = 1
        frames = iter(frames)
        first = next(frames)
        stream.height, stream.width = first.shape[:2]
        for image in chain([first], frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=bt709)))
        container.mux(stream.encode())


def _side_by_side(images):
    """(S, H, W, 3) -> (H, S * W, 3)"""
    return np.concatenate(list(images), axis=1)
