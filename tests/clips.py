"""Clips that tests create and read."""

import math
import struct
from fractions import Fraction

import av
import numpy as np

TICK = Fraction(1, 600)  # seconds


def colour_of(number):
    """The colour of a frame, far from that of its neighbours."""
    return [number * 37 % 256, number * 91 % 256, number * 53 % 256]


def make_clip(path, count=30, steps=(20,), size=(96, 64), rotation=0, sound="aac", start=0, pixel_ratio=None,
              sound_rate=44100):  # fmt: skip
    """Write a clip of frames in one colour each, with a red corner at the top left.

    steps: durations of frames in TICKs, repeated. size: (width, height). rotation: in metadata. sound: a codec, or
    None. start: time of the first frame in TICKs.
    """
    codec = {".avi": "mpeg4", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = *size, "yuv420p", TICK
        if pixel_ratio:
            stream.codec_context.sample_aspect_ratio = pixel_ratio
        track = container.add_stream(sound, rate=sound_rate) if sound else None
        time, samples = start, 0
        for number in range(count):
            image = np.full((size[1], size[0], 3), colour_of(number), np.uint8)
            image[: size[1] // 4, : size[0] // 4] = [255, 0, 0]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, TICK
            container.mux(stream.encode(frame))
            time += steps[number % len(steps)]
            while track and samples / sound_rate < (time - start) * TICK:
                part = _tone(samples, sound_rate)
                part.pts = samples + round(start * TICK * sound_rate)
                container.mux(track.encode(part))
                samples += 1024
        container.mux(stream.encode())
        container.mux(track.encode() if track else [])
    if rotation:
        _rotate(path, rotation)


def _rotate(path, angle):
    """Write a rotation, counterclockwise in degrees, into the header of the first track of an MP4 file."""
    cos, sin = round(math.cos(math.radians(angle))), round(math.sin(math.radians(angle)))
    matrix = (cos << 16, -sin << 16, 0, sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    content = path.read_bytes()
    start = content.index(b"tkhd") + 44
    path.write_bytes(content[:start] + struct.pack(">9i", *matrix) + content[start + 36 :])


def _tone(first, rate):
    """1024 samples of a tone."""
    wave = np.sin(np.arange(first, first + 1024) / 16) * 8000
    frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    return frame


def sound_of(path):
    """The decoded sound of a clip; an empty array without sound."""
    with av.open(str(path)) as container:
        tracks = container.streams.audio
        parts = [frame.to_ndarray().ravel() for frame in container.decode(tracks[0])] if tracks else []
    return np.concatenate([np.zeros(0, np.float32), *parts])
