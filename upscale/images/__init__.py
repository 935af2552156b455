"""Picture files: what an image is in memory, how it is read and written, what of its metadata is kept."""

from upscale.images.files import read_image, write_image
from upscale.images.formats import FORMATS, ImageFormat, format_of, is_picture
from upscale.images.image import Image, Pixels
from upscale.images.metadata import Metadata

__all__ = [
    "FORMATS",
    "Image",
    "ImageFormat",
    "Metadata",
    "Pixels",
    "format_of",
    "is_picture",
    "read_image",
    "write_image",
]
