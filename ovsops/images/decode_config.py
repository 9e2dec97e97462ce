"""What a decoder refuses: caps on bytes, pixels, sides and parts of one image."""

from dataclasses import dataclass

from ovsops.errors import ConfigError

MEBI = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Caps on one encoded image. All of them hold before a single pixel is decoded."""

    max_bytes: int = 64 * MEBI
    """Largest encoded image, in bytes."""
    max_pixels: int = 64_000_000
    """Largest width times height, in pixels."""
    max_side: int = 16_384
    """Longest side, in pixels."""
    max_scans: int = 500
    """Most scans of one JPEG. A progressive one of a camera or of the web has about ten; every scan costs a
    pass over all pixels, so thousands of them are an attack."""
    max_parts: int = 200_000
    """Most segments (JPEG) or chunks (PNG, WebP) of one image; an animation has one or two per frame."""
    max_exif_bytes: int = MEBI
    """EXIF longer than this is not looked at: orientation 1, note `N_EXIF_TOO_LARGE`. Other metadata (ICC,
    XMP, text) is never inflated nor parsed, whatever its length."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"decode.{name} = {value}: a cap is at least 1")
