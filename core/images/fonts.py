"""Fonts for titles, and a spelling for characters that no font has."""

import unicodedata
from contextlib import suppress

from PIL import ImageFont

FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf", "arial.ttf")
NO_CHARACTER = "\U0010ffff"  # Unicode reserves it, so every font draws its sign for a missing glyph


def font_for(size, text):
    """Return Pillow's own font, which is the same on all systems, or the system font that has most of the text."""
    own = ImageFont.load_default(size)
    fonts = [own]
    for name in () if text.isascii() else FONTS:
        with suppress(OSError):  # not installed
            fonts.insert(-1, ImageFont.truetype(name, size))
    return min(fonts, key=lambda font: len(missing(font, composed(text))))  # the first of equals


def composed(text):
    """Return a text with one character for each letter with its accents; file names of a Mac separate them."""
    return unicodedata.normalize("NFC", text)


def missing(font, text):
    """Return the set of characters that a font does not have, control characters included."""
    sign = _drawn(font, NO_CHARACTER)
    return {one for one in set(text) if not one.isprintable() or (not one.isspace() and _drawn(font, one) == sign)}


def spelled(font, text):
    r"""Return a text as the font can draw it: a similar character or a code such as \u65e5 for a missing one."""
    text = composed(text)
    for one in missing(font, text):
        base = "".join(part for part in unicodedata.normalize("NFKD", one) if not unicodedata.combining(part))
        similar = (unicodedata.normalize("NFKC", one), base)  # such as A for a wide A, e for é
        text = text.replace(one, next((plain for plain in similar if plain and not missing(font, plain)), code_of(one)))
    return text


def code_of(character):
    r"""Return the code of a character, such as \u65e5."""
    return f"\\x{ord(character):02x}" if character <= "~" else character.encode("ascii", "backslashreplace").decode()


def _drawn(font, character):
    try:
        mask = font.getmask(character)
        return mask.size, bytes(mask)
    except UnicodeError:  # half of a surrogate pair, in names that are not valid UTF-8; fonts of bitmaps
        return None
