"""Every mode that pictures come in, and every way in which files are broken."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.drawing import draw
from faussaire.data.decode import Decoded, Fault, decode, decoding
from faussaire.data.fit import crop_box, fit, on_background, to_array, to_channels
from faussaire.data.sources import open_source

WHITE = (255, 255, 255)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(raw: bytes, **options: Any) -> Decoded:
    with decoding():
        return decode(raw, **options)


def broken(raw: bytes) -> Fault:
    with pytest.raises(Fault) as caught:
        read(raw)
    return caught.value


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of some 100 bytes that declares 2.5 billion pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "kind", "result"),
    [
        ("1", "PNG", "L"),
        ("L", "PNG", "L"),
        ("L", "JPEG", "L"),
        ("LA", "PNG", "RGBA"),
        ("P", "PNG", "RGB"),
        ("P", "GIF", "RGB"),
        ("RGB", "PNG", "RGB"),
        ("RGB", "JPEG", "RGB"),
        ("RGB", "BMP", "RGB"),
        ("RGB", "WEBP", "RGB"),
        ("RGB", "TIFF", "RGB"),
        ("RGB", "PPM", "RGB"),
        ("RGB", "TGA", "RGB"),
        ("RGBA", "PNG", "RGBA"),
        ("CMYK", "JPEG", "RGB"),
        ("CMYK", "TIFF", "RGB"),
        ("YCbCr", "TIFF", "RGB"),
    ],
)
def test_modes(mode: str, kind: str, result: str) -> None:
    seen = read(encode(draw(1, 128, 96, mode), kind))
    assert (seen.image.mode, seen.mode, seen.size) == (result, mode, (128, 96))
    difference = np.asarray(seen.image.convert("L"), int) - np.asarray(draw(1, 128, 96, "L"), int)
    if mode not in ("1", "LA", "RGBA"):  # dithered, or drawn with transparency
        assert np.abs(difference).mean() < 12


def test_palette_with_transparency_keeps_it() -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putpixel((1, 0), 1)
    seen = read(encode(image, transparency=0)).image
    assert seen.mode == "RGBA"
    assert seen.getpixel((0, 0)) == (0, 0, 0, 0)
    assert seen.getpixel((1, 0)) == (200, 10, 20, 255)
    flat = to_channels(seen, "RGB", WHITE)
    assert flat.getpixel((0, 0)) == WHITE
    grey = Image.new("L", (2, 1), 9)
    assert read(encode(grey, transparency=9)).image.getpixel((0, 0)) == (9, 9, 9, 0)
    many = encode(image, transparency=bytes([7, 99]))
    assert read(many).image.getpixel((1, 0)) == (200, 10, 20, 99)


def test_sixteen_bits_and_floats() -> None:
    deep = np.array([[0, 257, 65535], [128 * 257, 514, 1]], np.uint16)
    wanted = [[0, 1, 255], [128, 2, 0]]
    for kind in ("PNG", "TIFF"):
        seen = read(encode(Image.fromarray(deep), kind))
        assert seen.mode.startswith("I")
        assert seen.image.mode == "L"
        np.testing.assert_array_equal(seen.image, wanted)
    seen = read(encode(Image.fromarray(deep.astype(np.float32) / 65535), "TIFF"))
    np.testing.assert_array_equal(seen.image, wanted)
    assert (
        "values 0..65535" in broken(encode(Image.fromarray(deep.astype(np.float32)), "TIFF")).reason
    )
    negative = encode(Image.fromarray(np.array([[-1, 2]], np.int32)), "TIFF")
    assert "values -1..2" in broken(negative).reason


def test_animated_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue", "lime")]
    seen = read(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert seen.animated
    assert seen.image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert not read(encode(frames[0], "GIF")).animated


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (64, 32))
    upright.paste((255, 0, 0), (0, 0, 16, 16))  # red is top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for reduce_to in (None, 16):
        seen = read(encode(stored, kind, exif=exif), reduce_to=reduce_to)
        assert seen.size == (32, 64)
        small = np.asarray(seen.image.resize((4, 2), Image.Resampling.BOX), int)
        assert small[0, 0, 0] > 200
        assert np.abs(small[..., 0].reshape(-1)[1:]).max() < 60


def test_damaged_exif_is_no_fault() -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"):
        assert read(encode(draw(1), "JPEG", exif=exif)).size == (24, 32)


def test_a_jpeg_may_be_read_smaller_but_whole() -> None:
    raw = encode(draw(3, 600, 800), "JPEG")
    seen = read(raw, reduce_to=128)
    assert seen.size == (600, 800)
    assert 128 <= min(seen.image.size) < 300
    with pytest.raises(Fault, match="cut short"):
        read(raw[: len(raw) * 9 // 10], reduce_to=128)


def test_broken_files_say_why() -> None:
    jpeg, png = encode(draw(1, 200, 200), "JPEG"), encode(draw(1, 200, 200))
    fault = broken(jpeg[: len(jpeg) // 2])
    assert fault.kind == "truncated"
    assert "cut short" in fault.reason
    assert broken(png[: len(png) // 2]).kind == "truncated"
    assert broken(encode(draw(1, 200, 200), "WEBP")[:500]).kind in ("truncated", "unreadable")
    assert broken(b"").reason == "the file is empty (0 bytes)"
    assert "text" in broken(b"<html>404 Not found</html>").reason
    assert "not a picture" in broken(bytes(range(256)) * 4).reason
    assert "HEIC" in broken(b"\0\0\0\x18ftypheic" + bytes(40)).reason
    assert broken(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").kind == "unreadable"
    flipped = bytearray(png)
    flipped[png.index(b"IDAT") + 40] ^= 255
    assert broken(bytes(flipped)).kind in ("truncated", "unreadable")


def test_noise_never_escapes_as_another_error() -> None:
    rng = np.random.default_rng(0)
    raws = [encode(draw(1, 40, 40), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
    for raw in raws:
        for _ in range(60):
            damaged = bytearray(raw)
            for at in rng.integers(0, len(raw), 6):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(Fault):  # any other exception fails the test
                read(bytes(damaged[: rng.integers(1, len(raw) + 1)]))


@pytest.mark.parametrize("size", [(50_000, 50_000), (9_500, 9_500)])
def test_bombs_are_not_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    fault = broken(bomb(*size))
    assert fault.kind == "bomb"
    assert "not decoded" in fault.reason
    (tmp_path / "b.png").write_bytes(bomb(*size))
    with pytest.raises(Fault, match="not decoded"):
        open_source(tmp_path)[0].read()


def test_resizing_does_not_bleed_from_under_transparency() -> None:
    """Red beside transparent green: edges must stay pure red."""
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 30, 64))
    small = to_array(fit(image, (16, 16), "crop", WHITE)).astype(int)
    seen = small[..., 3] > 8
    assert small[..., 1][seen].max() == 0
    assert small[..., 0][seen].min() > 240
    assert 8 < small[8, 7, 3] < 250


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(128, 96), (96, 128), (7, 300), (1, 1), (64, 48)])
def test_fits_have_the_shape_asked(mode: str, size: tuple[int, int]) -> None:
    for how in ("crop", "pad", "squash"):
        out = to_array(fit(draw(1, *size, mode), (64, 48), how, WHITE))  # type: ignore[arg-type]
        assert out.shape == (64, 48, len(mode))
        assert out.dtype == np.uint8


def test_crop_is_centred_and_pad_shows_all() -> None:
    assert crop_box((100, 300), (50, 50)) == (100.0, 0.0, 200.0, 100.0)
    image = Image.new("RGB", (300, 100), "blue")
    image.paste((255, 0, 0), (100, 0, 200, 100))
    assert (to_array(fit(image, (50, 50), "crop", WHITE))[:, 5:-5] == (255, 0, 0)).all()
    padded = to_array(fit(image, (60, 60), "pad", (1, 2, 3)))
    assert tuple(padded[0, 30]) == (1, 2, 3)
    assert tuple(padded[30, 30]) == (255, 0, 0)
    assert tuple(padded[30, 3]) == (0, 0, 255)
    clear = to_array(fit(image.convert("RGBA"), (60, 60), "pad", (1, 2, 3)))
    assert tuple(clear[0, 30]) == (0, 0, 0, 0)
    assert on_background(image, WHITE) is image


def test_real_photographs(real_data: Path) -> None:
    source = open_source(real_data / "style_pictures")
    assert len(source) == 8
    for item in source:
        image = item.read()
        assert isinstance(image, Image.Image)
        assert image.mode == "RGB"
