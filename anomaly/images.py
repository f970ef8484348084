"""The only door for pictures: bytes, path or PIL image -> checked RGB array (Pillow, pillow.readthedocs.io)."""

import hashlib
import io
import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pydantic import BaseModel, ConfigDict, Field

from anomaly.errors import ImageError, ImageTooLargeError, ImageTooSmallError

# What is read, and nothing else: Pillow's other plugins (EPS runs Ghostscript, PDF, PSD ...) are never asked.
# First bytes of the file -> the class that reads it. RIFF is also WAV and AVI; WebPImageFile looks further.
_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,  # BigTIFF
    b"MM\0+": TiffImageFile,
    b"BM": BmpImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_PIL_FORMATS = (*FORMATS, "MPO")  # MPO is what Image.open calls a phone's JPEG with a depth map behind the picture

# EXIF orientation -> what turns the stored pixels upright. ImageOps.exif_transpose does the same, but also writes the
# EXIF block anew: nobody reads it here, and an odd block could make it fail.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 0x0142, 0x0143  # EXIF and TIFF tags
_WHITE = (255, 255, 255, 255)

RgbImage = NDArray[np.uint8]  # (H, W, 3), RGB, C-contiguous


class ImageLimits(BaseModel):
    """What a picture may weigh. The inspector carries its own; these are the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pixels: int = Field(default=50_000_000, gt=0)  # width x height as declared, checked before any pixel is decoded
    max_bytes: int = Field(default=50_000_000, gt=0)  # of the file
    min_side: int = Field(default=16, gt=0)  # pixels


DEFAULT_LIMITS = ImageLimits()


def read(source: bytes | str | Path | Image.Image, limits: ImageLimits = DEFAULT_LIMITS) -> RgbImage:
    """Turns one picture into the array that every detector gets.

    EXIF rotation is applied, transparency is laid on white, of an animation or a multi-page file the first picture is
    taken, 16-bit values are divided by 257 (Pillow itself does so for colour, by keeping the high byte, at most one
    level lower). Float pixels must lie in [0, 1]. 32-bit integers are refused: nothing in the file says which value is
    white. Colour profiles are not applied.

    Args:
        source: The file's bytes, its path, or a PIL image (taken at the frame it stands on, and left unchanged).
        limits: Sizes that are accepted.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        ImageError: The picture cannot be used; the text names it, what is wrong and what is accepted.
    """
    try:
        image = source if isinstance(source, Image.Image) else _open(_bytes(source, limits))
        _check(image, limits)
        return _pixels(image)
    except ImageError as error:
        smallest = f"{limits.min_side} x {limits.min_side} pixels"
        largest = f"{limits.max_pixels:,} pixels and {limits.max_bytes:,} bytes"
        accepted = f"{', '.join(FORMATS)} from {smallest} to {largest}"
        raise type(error)(f"{_name(source)} {error}; accepted: {accepted}") from error


def digest(image: RgbImage) -> str:
    """Identifies a picture by what a detector sees, whatever file it came in.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        sha256 over shape and pixels, 64 hex digits.
    """
    shape = " ".join(map(str, image.shape))
    return hashlib.sha256(f"{shape}\n".encode() + image.tobytes()).hexdigest()


def _name(source: object) -> str:
    """Gives what a person would recognise: the file's name without its folder, which may be a server's."""
    if isinstance(source, bytes):
        return "the picture given as bytes"
    if isinstance(source, str | Path):
        return f"'{Path(source).name or source}'"
    if isinstance(source, Image.Image) and (filename := getattr(source, "filename", "")):
        return f"'{Path(os.fsdecode(filename)).name}'"
    return f"the {type(source).__module__}.{type(source).__qualname__}".replace("builtins.", "")


def _bytes(source: bytes | str | Path, limits: ImageLimits) -> bytes:
    """Reads no more than the limit, and only from a regular file (a pipe or device could go on for ever)."""
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str | Path):
        data = _file_bytes(Path(source), limits)
    else:
        raise ImageError("is no picture, expected bytes, a path or a PIL image (PIL.Image.fromarray makes one)")
    if not data:
        raise ImageError("is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(f"has more than {limits.max_bytes:,} bytes")
    return data


def _file_bytes(path: Path, limits: ImageLimits) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("is a folder")
        if not stat.S_ISREG(mode):
            raise ImageError("is not a regular file")
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError(f"does not exist (looked for {path})") from error
    except PermissionError as error:
        raise ImageError(f"may not be read, permission is denied ({path})") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ImageError(f"cannot be opened ({error})") from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """Parses the header only. Not Image.open, which compares the declared size with Image.MAX_IMAGE_PIXELS: that is
    one value for the whole process, whoever set it, and it warns or raises before our own limit is looked at. (Pillow
    still looks at it where it decodes a TIFF, and where a GIF's frame sticks out of its screen.)
    """
    reader = next((reader for start, reader in _READERS.items() if data.startswith(start)), None)
    if reader is None:
        raise ImageError(f"is not a picture of a known kind (starts with {data[:8]!r})")
    try:
        return reader(io.BytesIO(data))
    except Exception as error:  # plugins raise a dozen kinds on damaged files: OSError, SyntaxError, struct.error ...
        raise ImageError(f"has a damaged {reader.format} header, {len(data):,} bytes in all ({error!r})") from error


def _check(image: Image.Image, limits: ImageLimits) -> None:
    if isinstance(image, ImageFile.ImageFile) and image.format not in _PIL_FORMATS:
        raise ImageError(f"is {image.format}")
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(f"declares {width} x {height} = {width * height:,} pixels, which is too many")
    if min(width, height) < limits.min_side:
        raise ImageTooSmallError(f"has only {width} x {height} pixels")
    if isinstance(image, TiffImageFile):  # tiles may be larger than the picture, and whole tiles are allocated
        tile = [image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        if not all(isinstance(side, int) for side in tile) or tile[0] * tile[1] > limits.max_pixels:
            raise ImageTooLargeError(f"declares tiles of {tile[0]} x {tile[1]} pixels, which is too many")


def _pixels(image: Image.Image) -> RgbImage:
    try:
        image.load()
        return _rgb(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # as in _open
        kind = f"{image.format} " if image.format else ""
        why = str(error) or type(error).__name__
        raise ImageError(f"holds {kind}pixels that cannot be decoded; damaged or cut short? ({why})") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels, so they are taken as they are stored
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> RgbImage:
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return _grey(((values + 128) // 257).astype(np.uint8))  # 65535 / 257 = 255; convert("L") would clip at 255
    if image.mode == "F":
        floats = np.asarray(image)
        low, high = float(floats.min()), float(floats.max())
        if not (low >= 0 and high <= 1):  # also true for NaN and infinity
            raise ImageError(f"has float pixels from {low:g} to {high:g}, expected 0 to 1")
        return _grey(np.rint(floats * 255).astype(np.uint8))
    if image.mode == "I":
        raise ImageError("has 32-bit integer pixels, whose white is not known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", coloured.size, _WHITE), coloured)
    return np.array(image.convert("RGB"))


def _grey(values: NDArray[np.uint8]) -> RgbImage:
    return np.ascontiguousarray(np.broadcast_to(values[..., None], (*values.shape, 3)))
