"""Pictures as people bring them: odd ones are read, impossible ones refused in one line."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from bitmar_core.data import images
from bitmar_core.data.images import image_digest, load_image, to_pixels, to_square
from bitmar_core.errors import BitMarError, ImageError


@pytest.fixture(autouse=True)
def nothing_on_screen(capfd, recwarn):
    yield
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err == ""
    assert [str(w.message) for w in recwarn] == []


def photo(width=48, height=32):
    """Red grows to the right, green downwards: any flip or turn shows."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], axis=2).astype(np.uint8))


def refused(path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    message = str(caught.value)
    assert isinstance(caught.value, BitMarError)
    assert "\n" not in message and "; " in message, message
    assert caught.value.__cause__ is None
    return message


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif", "bmp", "tif", "ppm"])
def test_formats(tmp_path, ending):
    path = tmp_path / f"photo.{ending}"
    photo().save(path)
    image = load_image(path)
    assert image.mode == "RGB" and image.size == (48, 32)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo())).mean() < 20


def test_the_ending_of_the_name_does_not_matter(tmp_path):
    photo().save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.txt")
    assert load_image(str(tmp_path / "photo.txt")).size == (48, 32)


def test_first_frame_of_an_animation(tmp_path):
    red, blue = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    for ending in ("gif", "webp", "png"):
        path = tmp_path / f"moving.{ending}"
        red.save(path, save_all=True, append_images=[blue], duration=50)
        red_value, _, blue_value = load_image(path).getpixel((4, 4))
        assert red_value > 200 and blue_value < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = photo()
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = upright.transpose(Image.Transpose[undo[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = load_image(tmp_path / "turned.jpg")
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 8


def test_broken_exif_is_ignored(tmp_path):
    photo().save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage")
    assert load_image(tmp_path / "odd.jpg").size == (48, 32)


def test_cmyk(tmp_path):
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    red, green, blue = load_image(tmp_path / "print.jpg").getpixel((10, 10))
    assert red > 220 and green < 40 and blue < 40


def test_sixteen_bit_keeps_its_range(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    for ending in ("png", "tif", "pgm"):
        Image.fromarray(ramp).save(tmp_path / f"deep.{ending}")
        values = np.asarray(load_image(tmp_path / f"deep.{ending}"))[0, :, 0].astype(int)
        assert values[0] == 0 and values[-1] == 255 and abs(values[32] - 130) < 4


def test_float_tiff_with_nan(tmp_path):
    values = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "depth.tif")
    assert load_image(tmp_path / "depth.tif").getpixel((3, 3)) == (255, 255, 255)


def test_greyscale_and_one_bit(tmp_path):
    photo().convert("L").save(tmp_path / "grey.png")
    photo().convert("1").save(tmp_path / "bits.png")
    for name in ("grey.png", "bits.png"):
        red, green, blue = np.asarray(load_image(tmp_path / name)).transpose(2, 0, 1)
        assert (red == green).all() and (green == blue).all()


def test_transparency_becomes_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    clear.convert("LA").save(tmp_path / "clear_grey.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0] + [0] * 762)
    palette.save(tmp_path / "clear_palette.png", transparency=1)
    palette.save(tmp_path / "clear.gif", transparency=1)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "clear_rgb.png", transparency=(1, 2, 3))
    # bytes of alpha for each palette entry: Pillow would warn about these
    palette.save(tmp_path / "alpha_palette.png", transparency=bytes([255, 0]))
    for name in ("clear.png", "clear_grey.png", "clear_palette.png", "clear.gif", "clear_rgb.png", "alpha_palette.png"):
        assert load_image(tmp_path / name).getpixel((4, 4)) == (255, 255, 255), name


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (3, 1), (500, 3)])
def test_extreme_shapes(tmp_path, size):
    Image.new("RGB", size, "green").save(tmp_path / "thin.png")
    pixels = to_pixels(load_image(tmp_path / "thin.png"))
    assert pixels.shape == (3, 224, 224) and torch.isfinite(pixels).all()
    assert pixels[1].max() > pixels[0].max() - 1e-6  # the green is still to be seen


def test_sixty_megapixels_before_decoding(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for width, height in [(60_001, 1000), (60_000, 60_000)]:  # the second is past what Pillow itself calls a bomb
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(data)
        start = time.perf_counter()
        assert "60 megapixels" in refused(tmp_path / "bomb.png")
        assert time.perf_counter() - start < 1


def test_what_is_not_a_file(tmp_path):
    assert "no such file" in refused(tmp_path / "gone.jpg")
    assert "no such file" in refused(tmp_path / "gone" / "photo.jpg")
    assert "folder" in refused(tmp_path)
    assert "no picture" in refused("")
    assert "web address" in refused("https://example.org/site.jpg")
    refused("nul\0byte.jpg")
    refused("x" * 5000)
    (tmp_path / "broken_link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "no such file" in refused(tmp_path / "broken_link.jpg")


def test_pipes_and_devices_are_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero", "/dev/null", "/dev/stdin"):
        start = time.perf_counter()
        refused(path)
        with pytest.raises(ImageError):
            image_digest(path)
        assert time.perf_counter() - start < 1


def test_too_many_bytes(tmp_path):
    path = tmp_path / "huge.bmp"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: takes no room
    assert "256" in refused(path)


def test_what_is_not_a_picture(tmp_path):
    cases = {
        "empty.jpg": (b"", "empty"),
        "notes.jpg": (b"Dies ist kein Bild", "not a picture"),
        "plan.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "report.pdf": (b"%PDF-1.7\n", "PDF"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        "random.png": (os.urandom(4000), "not a picture"),
        "head.png": (b"\x89PNG\r\n\x1a\n", "cut short"),
        "sound.wav": (b"RIFF\x24\0\0\0WAVEfmt ", "not a picture"),
    }
    for name, (data, cause) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert cause in refused(tmp_path / name), name


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif", "bmp", "tif"])
def test_truncated_and_damaged_files_raise_nothing_else(tmp_path, ending):
    path = tmp_path / f"whole.{ending}"
    photo(120, 90).save(path)
    data = path.read_bytes()
    for share in (0.02, 0.1, 0.5, 0.8):
        path.write_bytes(data[: int(len(data) * share)])
        refused(path)
    noise = np.random.default_rng(0)
    for _ in range(40):  # damaged anywhere: read or refused, never anything else
        broken = bytearray(data)
        for place in noise.integers(0, len(broken), 8):
            broken[place] = noise.integers(256)
        path.write_bytes(broken)
        try:
            assert load_image(path).mode == "RGB"
        except ImageError as error:
            assert "\n" not in str(error)


def test_message_is_one_line_even_for_an_odd_name(tmp_path):
    assert "\\n" in refused(tmp_path / "two\nlines\x1b[31m.jpg")
    assert "\x1b" not in refused(tmp_path / "two\nlines\x1b[31m.jpg")


def test_digest_is_that_of_the_bytes(tmp_path):
    photo().save(tmp_path / "photo.png")
    assert image_digest(tmp_path / "photo.png") == hashlib.sha256((tmp_path / "photo.png").read_bytes()).hexdigest()


def test_square_takes_the_centre_or_fits_everything_in():
    wide = photo(90, 45)
    expected = wide.crop((22, 0, 67, 45)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(to_square(wide, 32)).astype(int) - np.asarray(expected)).mean() < 3
    strip = to_square(photo(400, 100), 32)  # 4 : 1
    assert strip.getpixel((16, 0)) == (128, 128, 128)
    assert strip.getpixel((1, 16))[0] < 20 and strip.getpixel((30, 16))[0] > 235


def test_pixels_are_normalised():
    pixels = to_pixels(Image.new("RGB", (10, 10), (255, 0, 51)), 8, mean=(0.5, 0.0, 0.1), std=(0.5, 1.0, 0.1))
    assert pixels.shape == (3, 8, 8) and pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[:, 3, 3], torch.tensor([1.0, 0.0, 1.0]))
