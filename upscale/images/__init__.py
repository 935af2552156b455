"""Picture files: what an image is in memory, how it is read and written, what of its metadata is kept."""

from upscale.images.folder import pictures_in
from upscale.images.formats import FORMATS, ImageFormat, format_of, is_picture
from upscale.images.image import WHITE, Image, Pixels
from upscale.images.metadata import Metadata, Provenance
from upscale.images.read import decode, read_image, read_size, suffix_of
from upscale.images.write import LARGE, can_stream, check_size, held_by, takes_bands, write_bands, write_image

__all__ = [
    "FORMATS",
    "LARGE",
    "WHITE",
    "Image",
    "ImageFormat",
    "Metadata",
    "Pixels",
    "Provenance",
    "can_stream",
    "check_size",
    "decode",
    "format_of",
    "held_by",
    "is_picture",
    "pictures_in",
    "read_image",
    "read_size",
    "suffix_of",
    "takes_bands",
    "write_bands",
    "write_image",
]
