"""Read clips: videos in any container that PyAV reads, and animated images."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from core.images.folders import ANIMATED
from core.images.io import as_rgb, opened
from core.system.errors import UserError, reason

HD = 720  # lines; untagged videos of at least this height have the colours of BT.709, as players assume
MOST_MISSING = 0.5  # seconds at the end of a video, whose length is often rounded
STILL = Fraction(1, 10)  # seconds that browsers show a frame of an animated image without duration


class BadClip(UserError):
    """A clip that cannot be read to its end."""


@dataclass(frozen=True)
class Frame:
    """A frame: an RGB PIL image, upright; its time and its duration in seconds, exact Fractions, None if unknown."""

    image: Image.Image
    time: Fraction | None = None
    duration: Fraction | None = None


@dataclass(frozen=True)
class Clip:
    """A readable clip. rate: about, in frames per second. time_base: the unit of its times, in seconds."""

    path: Path
    count: int | None  # frames; None: unknown
    rate: Fraction
    time_base: Fraction
    start: Fraction = Fraction(0)  # of images and sound, in seconds as stored
    has_sound: bool = False
    size: tuple | None = None  # (width, height) of the upright frames

    def frames(self):
        """Yield all Frames, one at a time. Times begin near 0 and rise. Raises BadClip."""
        read, end, least = _animation if self.path.suffix.lower() in ANIMATED else _video, Fraction(0), Fraction(0)
        for image, time, duration in read(self):
            frame = Frame(image, end if time is None else max(time, least), duration)
            yield frame
            end, least = frame.time + frame.duration, frame.time + self.time_base


def open_clip(path):
    """Return the Clip of a file, and decode its first frame. Raises BadClip if this fails."""
    path = Path(path)
    if path.suffix.lower() in ANIMATED:
        with opened(path, BadClip) as image:
            clip = Clip(path, getattr(image, "n_frames", 1), 1 / _duration(image), Fraction(1, 1000))
    else:
        with container_of(path) as container:
            stream = container.streams.best("video")
            if max((entry.pos + entry.size for entry in stream.index_entries), default=0) > container.size:
                raise ValueError("the file ends too early")
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            length = (container.duration or 0) * rate / 1_000_000  # container times are in microseconds
            count = round(length) or stream.frames or None
            start, has_sound = Fraction(container.start_time or 0, 1_000_000), bool(container.streams.audio)
            clip = Clip(path, count, rate, stream.time_base, start, has_sound)
    first = next(clip.frames(), None)
    if first is None:
        raise BadClip(f"Cannot read {path} as a clip (it has no frames). Replace or remove it.")
    return replace(clip, size=first.image.size)


@contextmanager
def container_of(path):
    """Open a file with PyAV. Its errors within the context become BadClips."""
    import av  # slow to import and not needed for training

    try:
        with av.open(str(Path(path).absolute())) as container:
            if not container.streams.video:
                raise BadClip(f"Cannot read {path} as a clip (it has no video stream). Choose another file.")
            yield container
    except (av.FFmpegError, ValueError) as error:
        raise BadClip(f"Cannot read {path} as a clip ({reason(error)}). Replace or remove it.") from error


def _video(clip):
    """Yield (image, time or None, duration or None) of the frames of a video."""
    with container_of(clip.path) as container:
        stream, end = container.streams.best("video"), clip.start
        stream.thread_type = "AUTO"  # Decode in several threads.
        for packet in container.demux():
            if packet.is_corrupt:  # The file ends within it.
                raise ValueError(f"damaged after {float(end):.1f} seconds")
            for frame in packet.decode() if packet.stream is stream else ():
                time = None if frame.pts is None else frame.pts * stream.time_base
                duration = frame.duration * stream.time_base if frame.duration else 1 / clip.rate
                end = (end if time is None else time) + duration
                shown = None if time is None else time - clip.start
                yield _upright(frame, stream.sample_aspect_ratio), shown, duration
        if end < _end(stream) - MOST_MISSING:
            raise ValueError(f"damaged after {float(end):.1f} seconds")


def _end(stream):
    """Return the time in seconds at which a stream says that it ends; 0 if unknown."""
    if tag := stream.metadata.get("DURATION"):  # Matroska: 00:00:02.500000000
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    # MP4: frames that its editor cut off still count. There the last packet shows the damage.
    is_known = stream.duration and "mp4" not in stream.container.format.name
    return ((stream.start_time or 0) + stream.duration) * stream.time_base if is_known else 0


def _upright(frame, pixel_ratio):
    """Return a frame of PyAV as an RGB PIL image with square pixels, turned by its rotation.

    pixel_ratio: width by height of its pixels; None or 0: unknown.
    """
    width = round(frame.width * (pixel_ratio or 1))
    has_alpha = any(component.is_alpha for component in frame.format.components)
    is_untagged = frame.colorspace == 2 and frame.height >= HD  # 2: unspecified
    form = "rgba" if has_alpha else "rgb24"
    rgb = frame.reformat(width, format=form, src_colorspace="itu709" if is_untagged else None).to_ndarray()
    return as_rgb(Image.fromarray(np.rot90(rgb, round(frame.rotation / 90))))


def _animation(clip):
    """Yield (image, None, duration) of the frames of an animated image, transparent pixels white."""
    with opened(clip.path, BadClip) as image:
        for frame in ImageSequence.Iterator(image):
            yield as_rgb(frame), None, _duration(frame)


def _duration(image):
    return Fraction(round(image.info.get("duration") or 0), 1000) or STILL
