"""What may come in through the only door for pictures, and what is told to whoever sends something else."""

import io
import os
import random
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from anomaly import images
from anomaly.errors import ImageError
from anomaly.images import ImageLimits, digest, read

ORIENTATION = 0x0112
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def scene(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture without any symmetry: red and green ramps, one blue corner."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    picture[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    picture[:8, :8] = BLUE
    return picture


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """Writes a PNG by hand, for what Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(tags: dict[int, tuple[int, int]], pixels: bytes) -> bytes:
    """Writes an uncompressed one-strip TIFF by hand; tags are number -> (type, value), type 3 = SHORT, 4 = LONG."""
    end_of_directory = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = {**tags, 273: (4, end_of_directory)}
    directory = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, (kind, value) in sorted(entries.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0) + pixels


# What comes out


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_a_lossless_file_gives_its_very_pixels(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"part.{file_format.lower()}"
    options = {"lossless": True} if file_format == "WEBP" else {}
    path.write_bytes(encoded(Image.fromarray(scene()), file_format, **options))
    picture = read(path)
    assert (picture.dtype, picture.shape, picture.flags["C_CONTIGUOUS"]) == (np.uint8, (24, 40, 3), True)
    assert np.array_equal(picture, scene())


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_a_lossy_file_gives_nearly_its_pixels(file_format: str) -> None:
    picture = read(encoded(Image.fromarray(scene()), file_format, quality=95))
    assert picture.shape == (24, 40, 3)
    assert np.abs(picture.astype(int) - scene()).mean() < 6


def test_bytes_string_path_and_pil_image_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(scene()).save(path)
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(scene())):
        assert np.array_equal(read(source), scene())


def test_the_name_of_a_file_does_not_decide_its_format(tmp_path: Path) -> None:
    path = tmp_path / "part.jpg"
    path.write_bytes(encoded(Image.fromarray(scene()), "PNG"))
    assert np.array_equal(read(path), scene())


def test_what_comes_out_can_be_written_to_without_touching_the_given_image() -> None:
    given = Image.fromarray(scene())
    read(given)[:] = 0
    assert np.array_equal(np.asarray(given), scene())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_rotated_photograph_is_turned_upright(file_format: str, orientation: int) -> None:
    upright = Image.fromarray(scene())
    # What a camera stores so that this orientation shows `upright`: the inverse of what the tag asks for.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(file_format, {})
    data = encoded(stored, file_format, exif=exif, **options)
    for source in (data, Image.open(io.BytesIO(data))):
        picture = read(source)
        assert picture.shape == (24, 40, 3)
        assert np.abs(picture.astype(int) - scene()).mean() < (6 if file_format == "JPEG" else 0.001)


def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    data = encoded(Image.fromarray(scene()), "PNG", exif=b"Exif\0\0this is no directory of tags")
    assert np.array_equal(read(data), scene())


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_a_grey_picture_becomes_three_equal_channels(file_format: str) -> None:
    grey = scene()[..., 0]
    picture = read(encoded(Image.fromarray(grey), file_format))
    assert picture.shape == (24, 40, 3)
    assert np.abs(picture.astype(int) - grey[..., None]).mean() < 3
    assert np.ptp(picture.astype(int), axis=2).max() <= 2  # WebP stores colour, so its grey is not quite grey


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_a_one_bit_picture_becomes_black_and_white(file_format: str) -> None:
    bits = scene()[..., 0] > 127
    picture = read(encoded(Image.fromarray(bits), file_format))
    assert np.array_equal(picture, np.repeat(bits[..., None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_transparency_is_laid_on_white(mode: str, file_format: str) -> None:
    black = (0,) * (len(mode) - 1)
    image = Image.new(mode, (32, 16), (*black, 0))  # black underneath: dropping alpha would show it
    image.paste((*black, 255), (0, 0, 8, 16))
    image.paste((*black, 51), (8, 0, 16, 16))
    picture = read(encoded(image, file_format))
    assert np.all(picture[:, :8] == 0)
    assert np.all(np.abs(picture[:, 8:16].astype(int) - 204) <= 1)  # a fifth black on white
    assert np.all(picture[:, 16:] == 255)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_laid_on_white(file_format: str) -> None:
    image = Image.new("P", (32, 16), 0)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.paste(1, (16, 0, 32, 16))
    picture = read(encoded(image, file_format, transparency=0))
    assert np.all(picture[:, :16] == WHITE)
    assert np.all(picture[:, 16:] == GREEN)


def test_a_palette_with_graded_transparency_is_laid_on_white() -> None:
    image = Image.new("P", (32, 16), 0)
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.paste(1, (16, 0, 32, 16))
    picture = read(encoded(image, "PNG", transparency=bytes([51, 255])))
    assert np.all(np.abs(picture[:, :16].astype(int) - 204) <= 1)
    assert np.all(picture[:, 16:] == 0)


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_picture_shows_its_colours(file_format: str) -> None:
    image = Image.new("P", (32, 16), 0)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.paste(2, (16, 0, 32, 16))
    picture = read(encoded(image, file_format))
    assert np.all(picture[:, :16] == RED)
    assert np.all(picture[:, 16:] == BLUE)


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])  # Pillow writes CMYK JPEG inverted, as Adobe does
def test_a_cmyk_picture_is_not_shown_as_a_negative(file_format: str) -> None:
    image = Image.new("CMYK", (32, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    image.paste((0, 0, 0, 0), (16, 0, 32, 16))  # no ink: white
    data = encoded(image, file_format)
    assert (b"Adobe" in data) == (file_format == "JPEG")
    picture = read(data).astype(int)
    assert np.abs(picture[:, :12] - RED).max() <= 4
    assert np.abs(picture[:, 20:] - WHITE).max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(file_format: str) -> None:
    values = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    picture = read(encoded(Image.fromarray(values), file_format))
    assert np.array_equal(picture[..., 0], np.rint(values / 257).astype(np.uint8))
    assert (picture.min(), picture.max()) == (0, 255)


def test_sixteen_bit_grey_in_big_endian_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    image = Image.frombytes("I;16B", (40, 24), values.astype(">u2").tobytes())
    assert np.array_equal(read(image)[..., 1], np.rint(values / 257).astype(np.uint8))


def test_sixteen_bit_colour_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 24 * 40 * 3).astype(np.uint16).reshape(24, 40, 3)
    big_endian = values.astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    tags = {256: (4, 40), 257: (4, 24), 258: (3, 16), 259: (3, 1), 262: (3, 2), 277: (3, 3), 278: (4, 24)}
    for data in (png(40, 24, 16, 2, rows), tiff({**tags, 279: (4, values.nbytes)}, values.tobytes())):
        picture = read(data)
        assert np.abs(picture.astype(int) - values / 257).max() < 1
        assert (picture.min(), picture.max()) == (0, 255)


def test_float_pixels_in_zero_to_one_are_scaled() -> None:
    values = np.linspace(0, 1, 24 * 40, dtype=np.float32).reshape(24, 40)
    picture = read(encoded(Image.fromarray(values), "TIFF"))
    assert np.array_equal(picture[..., 2], np.rint(values * 255).astype(np.uint8))


@pytest.mark.parametrize("wrong", [-0.1, 1.1, 255.0, float("nan"), float("inf")])
def test_float_pixels_of_another_range_are_refused(wrong: float) -> None:
    values = np.full((24, 40), 0.5, np.float32)
    values[3, 4] = wrong
    with pytest.raises(ImageError, match=r"float pixels from .* expected 0 to 1"):
        read(encoded(Image.fromarray(values), "TIFF"))


def test_32_bit_integers_are_refused_because_their_white_is_not_known() -> None:
    with pytest.raises(ImageError, match=r"32-bit integer pixels.*8 or 16 bits"):
        read(encoded(Image.fromarray(np.full((24, 40), 70_000, np.int32)), "TIFF"))


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(file_format: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.all(read(data) == RED)


def test_a_phone_picture_with_a_second_one_behind_it_is_read() -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in (RED, GREEN)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    for source in (data, Image.open(io.BytesIO(data))):
        assert np.abs(read(source).astype(int) - RED).max() <= 4


# What is refused, and what is said


def refusal(source: object, limits: ImageLimits = images.DEFAULT_LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        read(source, limits)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert all(file_format in message for file_format in images.FORMATS)
    return message


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_a_truncated_file_is_refused_with_its_name(file_format: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    path = tmp_path / "cut.part"
    path.write_bytes(data[: len(data) // 2])
    message = refusal(path)
    assert message.startswith("'cut.part' ")
    assert file_format in message
    assert "damaged" in message


@pytest.mark.parametrize("file_format", images.FORMATS)
def test_a_damaged_file_gives_a_picture_or_an_image_error_and_nothing_else(file_format: str) -> None:
    dice = random.Random(0)
    data = encoded(Image.fromarray(scene()), file_format)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(4, len(damaged))] = dice.randrange(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on the metadata
                picture = read(bytes(damaged), ImageLimits(max_pixels=1_000_000))
            assert picture.dtype == np.uint8
        except ImageError:
            refused += 1
    assert refused > 0


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    assert refusal(path).startswith("'empty.png' is empty (0 bytes)")
    assert refusal(b"").startswith("the picture given as bytes is empty")


@pytest.mark.parametrize(
    "data", [b"hello, this is text", b"%PDF-1.7\n%", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"PK\x03\x04", b"<svg></svg>"]
)
def test_what_is_not_a_picture_is_refused_and_says_how_it_starts(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(data)
    assert f"'part.png' is not a picture of a known kind (starts with {data[:8]!r})" in refusal(path)


def test_formats_that_pillow_knows_but_we_do_not_accept_are_refused() -> None:
    for file_format in ("PPM", "TGA", "ICO", "PCX", "EPS"):
        assert "not a picture of a known kind" in refusal(encoded(Image.fromarray(scene()), file_format))


def test_a_pil_image_of_a_format_that_is_not_accepted_is_refused_before_it_is_decoded() -> None:
    lazy = Image.open(io.BytesIO(encoded(Image.fromarray(scene()), "EPS")))  # decoding would run Ghostscript
    assert "is EPS" in refusal(lazy)


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    message = refusal(tmp_path / "gone.png")
    assert message.startswith("'gone.png' does not exist")
    assert str(tmp_path) in message
    assert "does not exist" in refusal("https://example.org/part.png")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert f"'{tmp_path.name}' is a folder" in refusal(tmp_path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "'pipe.png' is not a regular file" in refusal(tmp_path / "pipe.png")


def test_an_impossible_path_is_refused() -> None:
    assert "cannot be opened" in refusal("part\0.png")
    assert "cannot be opened" in refusal("x" * 5000)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything, so a test run as root steps down to `nobody` for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_read_permission_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, whose parents only their owner may enter
        path = Path(folder) / "secret.png"
        path.write_bytes(encoded(Image.fromarray(scene()), "PNG"))
        path.chmod(0)
        Path(folder).chmod(0o755)
        with without_privileges():
            message = refusal(path)
    assert message.startswith("'secret.png' may not be read, permission is denied")


def test_too_small_a_picture_is_refused() -> None:
    assert "has only 1 x 1 pixels" in refusal(encoded(Image.new("RGB", (1, 1)), "PNG"))
    assert "has only 40 x 15 pixels" in refusal(Image.new("RGB", (40, 15)))
    assert read(Image.new("RGB", (16, 16))).shape == (16, 16, 3)


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(scene()), "BMP")
    path = tmp_path / "big.bmp"
    path.write_bytes(data)
    limits = ImageLimits(max_bytes=len(data) - 1)
    for source in (data, path):
        assert f"has more than {len(data) - 1:,} bytes" in refusal(source, limits)
        assert read(source, ImageLimits(max_bytes=len(data))).shape == (24, 40, 3)


def test_too_many_pixels_are_refused() -> None:
    limits = ImageLimits(max_pixels=24 * 40 - 1)
    for source in (encoded(Image.fromarray(scene()), "PNG"), Image.fromarray(scene())):
        assert "declares 40 x 24 = 960 pixels, which is too many" in refusal(source, limits)
        assert read(source, ImageLimits(max_pixels=24 * 40)).shape == (24, 40, 3)


def webp_bomb() -> bytes:
    payload = encoded(Image.new("RGBA", (32, 32), (1, 2, 3, 4)), "WEBP", lossless=True)[12:]
    side = (16382).to_bytes(3, "little")
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + side + side
    frame = bytes(6) + (31).to_bytes(3, "little") * 2 + bytes(4) + payload
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(screen: int, frame: int) -> bytes:
    header = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0, 0, 0)
    return header + b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\2\0;"


def bmp(side: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6)


def jpeg(side: int) -> bytes:
    small = encoded(Image.new("L", (32, 32)), "JPEG")
    return small.replace(struct.pack(">HH", 32, 32), struct.pack(">HH", side, side))


def grey_tiff(side: int, extra: dict[int, tuple[int, int]]) -> bytes:
    tags = {256: (4, side), 257: (4, side), 258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1), 278: (4, 9)}
    return tiff({**tags, 279: (4, 9), **extra}, bytes(9))


BOMBS = {
    "png": png(60_000, 60_000, 8, 0, b""),
    "png that Pillow itself only warns about": png(10_000, 10_000, 8, 0, b""),
    "gif": gif(60_000, 0),
    "gif whose frame sticks out": gif(32, 60_000),
    "bmp": bmp(60_000),
    "jpeg": jpeg(60_000),
    "tiff": grey_tiff(60_000, {}),
    "tiff with huge tiles": grey_tiff(32, {322: (4, 60_000), 323: (4, 60_000), 324: (4, 9), 325: (4, 9)}),
    "webp": webp_bomb(),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_decompression_bomb_is_refused_by_its_declared_size(bomb: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(BOMBS[bomb])
    assert "which is too many" in message or "exceeds limit" in message


def test_a_bomb_is_refused_without_the_memory_it_asks_for() -> None:
    program = (
        "import resource, sys\n"
        "from anomaly.errors import ImageError\n"
        "from anomaly.images import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: read(path)\n"
        "    except ImageError: pass\n"
        "    else: sys.exit('not refused')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(BOMBS))]
        for path, data in zip(paths, BOMBS.values(), strict=True):
            path.write_bytes(data)
        command = [sys.executable, "-c", program, *map(str, paths)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(ended.stdout) < 20_000  # kB; the smallest of these pictures would take 100 MB
    assert not ended.stderr


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("process_wide_limit", [100, None])
def test_pillows_process_wide_limit_does_not_matter(
    file_format: str, process_wide_limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.fromarray(scene()), file_format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", process_wide_limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(data).shape == (24, 40, 3)
    assert process_wide_limit == Image.MAX_IMAGE_PIXELS
    assert "which is too many" in refusal(BOMBS["png"])


def test_a_tiff_that_pillows_process_wide_limit_forbids_is_still_an_image_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # the one format in which Pillow asks again, while decoding
    assert "exceeds limit of 200 pixels" in refusal(encoded(Image.fromarray(scene()), "TIFF"))


@pytest.mark.parametrize("source", [scene(), None, 7, bytearray(b"x"), [Path("a.png")], io.BytesIO()])
def test_something_else_than_a_picture_is_refused_with_a_hint(source: object) -> None:
    message = refusal(source)
    assert type(source).__name__ in message
    assert "expected bytes, a path or a PIL image (PIL.Image.fromarray makes one)" in message


@pytest.mark.parametrize("wrong", [{"max_pixels": 0}, {"max_bytes": -1}, {"min_side": 0}, {"max_pixel": 9}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ImageLimits(**wrong)


# digest


def test_the_digest_depends_on_pixels_and_shape_alone() -> None:
    from_png, from_bmp = (read(encoded(Image.fromarray(scene()), file_format)) for file_format in ("PNG", "BMP"))
    assert digest(from_png) == digest(from_bmp)
    assert len(bytes.fromhex(digest(from_png))) == 32
    changed = from_png.copy()
    changed[5, 5, 1] ^= 1
    assert digest(changed) != digest(from_png)
    assert digest(from_png.reshape(40, 24, 3)) != digest(from_png)
    assert digest(np.asfortranarray(from_png)) == digest(from_png)
