"""A path that a person typed in, to an RGB picture, to pixels: every way this can go wrong ends in one `ImageError` line.

Letters in shapes: S the side of the square that an encoder wants.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from bitmar_core.errors import ImageError

MAX_PIXELS = 60_000_000
MAX_BYTES = 256 * 1024 * 1024
LETTERBOX_RATIO = 3.0

# Named one by one: Pillow also opens formats that run other programs (EPS), are no photos, or have no signature (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")


def _shown(path: object) -> str:
    """The path as one printable line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(path))


def _fail(path: object, cause: str, mend: str) -> ImageError:
    return ImageError(f"{_shown(path)}: {cause}; {mend}")


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Pillow warns about odd files through `warnings` and `logging`; what matters of it comes as our own error instead."""
    logger = logging.getLogger("PIL")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes; only of a regular file of at most MAX_BYTES, so that no device or pipe is ever waited for."""
    if not str(path).strip():
        raise ImageError("no picture was named; give the path of a JPEG or PNG file")
    if str(path).lower().startswith(("http://", "https://", "ftp://")):
        raise _fail(path, "this is a web address and BitMar works offline", "download the picture and give its path")
    name = os.path.expanduser(os.fspath(path))
    try:
        _check_regular(path, os.stat(name))
        # Looked at again once open: the name may by now stand for a pipe, which O_NONBLOCK keeps from hanging.
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            _check_regular(path, os.fstat(file.fileno()))
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise _fail(path, "there is no such file", "check the path") from None
    except PermissionError:
        raise _fail(path, "BitMar may not read this file", "change its permissions or copy it") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise _fail(path, f"the file cannot be read ({cause})", "check the path or copy the file elsewhere") from None
    if len(data) > MAX_BYTES:
        raise _fail(path, "the file is larger than 256 MB", "save a smaller copy of the picture")
    if not data:
        raise _fail(path, "the file is empty", "copy or download the picture again")
    return data


def _check_regular(path: object, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _fail(path, "this is a folder", "name one picture in it")
    if not stat.S_ISREG(status.st_mode):
        raise _fail(path, "this is a device or a pipe, not a file", "save the picture as a JPEG or PNG file")
    if status.st_size > MAX_BYTES:
        raise _fail(path, f"the file has {status.st_size / 1024**2:.0f} MB, more than 256", "save a smaller copy of the picture")


def image_digest(path: str | os.PathLike[str]) -> str:
    """sha256 of the file's bytes, in hex. Raises ImageError for what `load_image` would not read either."""
    return hashlib.sha256(_read_bytes(path)).hexdigest()


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """The picture as a person sees it: first frame, turned upright, on white where transparent, in 8-bit RGB.

    Raises ImageError, one line that names path, cause and mend, for everything that is not a whole picture of at most 60 megapixels.
    """
    data = _read_bytes(path)
    with _quiet_pillow():
        picture = _open(path, data)
        width, height = picture.size
        if width < 1 or height < 1:
            raise _fail(path, "the picture has no pixels", "copy or download it again")
        if width * height > MAX_PIXELS:  # before a single pixel is decoded
            megapixels = width * height / 1e6
            raise _fail(path, f"the picture is too large ({width} x {height}, {megapixels:.0f} megapixels)",
                        "save a copy of at most 60 megapixels")  # fmt: skip
        try:
            picture.load()
            image = _to_rgb(_upright(picture))
            image.info.clear()  # EXIF, profiles and comments are not carried along
            return image
        except MemoryError:
            raise _fail(path, "the picture does not fit into memory", "save a smaller copy") from None
        except Exception as error:  # a damaged file makes Pillow raise anything from OSError to IndexError
            if isinstance(error, OSError) and "truncated" in str(error):
                raise _fail(path, "the file ends before the picture does", "copy or download it again") from None
            raise _fail(path, "the picture is damaged", "copy or download it again, or save it anew as JPEG or PNG") from None


def _open(path: object, data: bytes) -> Image.Image:
    """The header only; pixels are not decoded yet."""
    try:
        Image.init()
        return Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN])  # a build may lack some
    except Image.DecompressionBombError:
        raise _fail(path, "the picture is too large", "save a copy of at most 60 megapixels") from None
    except UnidentifiedImageError:
        pass
    except Exception:  # a header that lies: struct.error, ValueError, SyntaxError, OverflowError ...
        raise _fail(path, "the picture is damaged", "copy or download it again, or save it anew as JPEG or PNG") from None
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        raise _fail(path, "this is an SVG drawing, not a photo", "export it as PNG")
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        raise _fail(path, "this is an HEIC photo, which BitMar cannot read", "save it as JPEG")
    if data[:4] == b"%PDF":
        raise _fail(path, "this is a PDF, not a picture", "save the page as PNG")
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")) or data[8:12] == b"WEBP":
        raise _fail(path, "the picture is cut short or damaged", "copy or download it again")
    raise _fail(path, "this is not a picture", "give a JPEG, PNG, WEBP, GIF, BMP or TIFF file")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF says nothing about the pixels: show them as they are stored
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _to_8_bit(picture)
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert({"RGBa": "RGBA", "La": "LA"}[picture.mode])
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")  # a copy where it is RGB already, which lets go of the file behind it


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greys: full scale is 65535, or 1.0 for floats; what goes beyond is scaled to its own maximum."""
    values = np.nan_to_num(np.asarray(picture).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    full = 1.0 if picture.mode == "F" else 65535.0
    values = np.clip(values / max(full, values.max()), 0.0, 1.0)
    return Image.fromarray((values * 255).round().astype(np.uint8))  # mode L


def to_square(image: Image.Image, size: int = 224, fill: tuple[int, int, int] = (128, 128, 128)) -> Image.Image:
    """The shorter side scaled to `size` and the centre cut out: (W, H) -> (size, size).

    Beyond 3 : 1 that would lose most of the picture: then all of it is fitted in, with bars of `fill`.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    image = image if image.mode == "RGB" else image.convert("RGB")
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long > LETTERBOX_RATIO * short:
        inner = (max(1, round(width * size / long)), max(1, round(height * size / long)))
        square = Image.new("RGB", (size, size), fill)
        square.paste(image.resize(inner, Image.Resampling.BILINEAR), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        return square
    left, top = (width - short) / 2, (height - short) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))


def to_pixels(image: Image.Image, size: int = 224, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)) -> torch.Tensor:
    """RGB picture -> (3, S, S) float32, `(value / 255 - mean) / std`; bars of a letterbox are grey, near the mean."""
    pixels = torch.from_numpy(np.array(to_square(image, size))).permute(2, 0, 1)  # (3, S, S)
    return (pixels.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
