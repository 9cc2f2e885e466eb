"""The sound of a clip, copied into a video while its frames are written."""

import math

from core.images.clips import container_of

COPIED = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")  # codecs that players expect in an MP4 file
FALLBACK = "aac"  # for sound of other codecs
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)  # of FALLBACK, in Hz


class Sound:
    """The first sound track of a Clip as a stream of a PyAV container, to which nothing has been written yet."""

    def __init__(self, clip, container):
        self.container, self.packets = container, _packets(clip, container)
        self.pending = next(self.packets, None)

    def copy(self, until=math.inf):
        """Append the sound up to a time in seconds. Raises UserError if it is unreadable."""
        while self.pending is not None and self.pending.dts * self.pending.time_base <= until:
            self.container.mux(self.pending)
            self.pending = next(self.packets, None)


def _packets(clip, container):
    """Add a stream to a container and yield the packets of the sound, in order."""
    with container_of(clip.path) as source:
        track = source.streams.audio[0]
        if track.codec_context.codec.canonical_name in COPIED:
            stream = container.add_stream_from_template(track)
            for packet in source.demux(track):
                if packet.dts is not None:  # None: the end
                    packet.stream, delay = stream, round(clip.start / packet.time_base)
                    packet.pts, packet.dts = packet.pts - delay, packet.dts - delay
                    yield packet
        else:
            stream = container.add_stream(FALLBACK, rate=min(RATES, key=lambda rate: abs(rate - track.rate)))
            stream.layout = "mono" if track.channels == 1 else "stereo"
            for frame in source.decode(track):
                frame.pts -= round(clip.start / frame.time_base)
                yield from stream.encode(frame)  # This converts it to what the codec needs.
            yield from stream.encode()
