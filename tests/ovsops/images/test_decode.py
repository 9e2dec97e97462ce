import dataclasses
import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from ovsops.errors import ConfigError, ImageDecodeError, OvsopsError
from ovsops.images.decode import DecodeConfig, decode_image, read_header
from ovsops.images.png_header import PngHeader
from ovsops.images.png_pixels import num_raw_bytes
from tests.tiny import images


def code_of(data: bytes, config: DecodeConfig | None = None) -> str:
    with pytest.raises(ImageDecodeError) as caught:
        decode_image(data, config)
    return caught.value.code


def pillow_rgb(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_plain_jpeg_gives_the_pixels_of_pillow(progressive: bool, subsampling: int) -> None:
    data = images.jpeg(47, 65, progressive=progressive, subsampling=subsampling)
    image = decode_image(data)
    assert (image.pixels == pillow_rgb(data)).all()
    assert (image.format, image.num_frames, image.exif_orientation, image.notes) == ("JPEG", 1, 1, ())
    assert image.pixels.flags.writeable
    assert image.pixels.flags.c_contiguous


def test_a_grey_jpeg_becomes_rgb() -> None:
    data = images.encode(images.photo_pixels()[..., 0])
    assert (decode_image(data).pixels == pillow_rgb(data)).all()


def test_a_memoryview_is_decoded_as_its_bytes() -> None:
    data = images.jpeg()
    assert (decode_image(memoryview(data)).pixels == decode_image(data).pixels).all()


ADAM7_OF_8X8 = [  # the figure of PNG, section 8.2
    [1, 6, 4, 6, 2, 6, 4, 6],
    [7, 7, 7, 7, 7, 7, 7, 7],
    [5, 6, 5, 6, 5, 6, 5, 6],
    [7, 7, 7, 7, 7, 7, 7, 7],
    [3, 6, 4, 6, 3, 6, 4, 6],
    [7, 7, 7, 7, 7, 7, 7, 7],
    [5, 6, 5, 6, 5, 6, 5, 6],
    [7, 7, 7, 7, 7, 7, 7, 7],
]


# -- what must be refused


def test_zero_bytes() -> None:
    assert code_of(b"") == "E_EMPTY"


WHOLE = {
    "baseline": images.jpeg(24, 32),
    "progressive": images.jpeg(24, 32, progressive=True),
    "cmyk": images.encode(Image.fromarray(images.photo_pixels(24, 32)).convert("CMYK")),
    "odd sampling": images.jpeg_with_sampling(3, 1),
    "png": images.encode(images.photo_pixels(12, 16), "PNG"),
    "apng": images.apng_of_many(3),
    "webp": images.encode(images.photo_pixels(24, 32), "WEBP", quality=80),
    "lossless webp": images.encode(images.photo_pixels(12, 16), "WEBP", lossless=True),
    "animated webp": images.animated(3, "WEBP"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_cut_is_truncated_be_it_by_one_byte(name: str) -> None:
    data = WHOLE[name]
    assert decode_image(data).notes in ((), ("N_CMYK",), ("N_LENIENT_DECODER",))
    codes = {length: code_of(data[:length]) for length in range(12, len(data))}
    assert {length: code for length, code in codes.items() if code != "E_TRUNCATED"} == {}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_cut_jpeg_with_an_end_marker_glued_on_is_still_refused(progressive: bool, share: float) -> None:
    data = images.jpeg(240, 320, progressive=progressive)
    assert code_of(data[: int(len(data) * share)] + b"\xff\xd9") == "E_CORRUPT"


def test_a_file_filled_up_with_zeros_is_truncated() -> None:
    data = images.jpeg(240, 320)
    half = len(data) // 2
    assert code_of(data[:half] + bytes(len(data) - half)) == "E_TRUNCATED"


@pytest.mark.parametrize("name", images.impostors())
def test_other_formats_are_refused_by_their_bytes(name: str) -> None:
    assert code_of(images.impostors()[name]) == "E_MAGIC"


def test_a_bomb_is_refused_from_its_header() -> None:
    with pytest.raises(ImageDecodeError, match=r"50000x50000.*decode\.max_side") as caught:
        decode_image(images.png_bomb())
    assert caught.value.code == "E_TOO_LARGE"
    with pytest.raises(ImageDecodeError, match=r"10000x10000.*decode\.max_pixels"):
        decode_image(images.png_bomb(10_000, 10_000))


@pytest.mark.parametrize(
    ("size", "code"),
    [((1, 2_000_000_000), "E_TOO_LARGE"), ((0, 10), "E_BAD_HEADER"), ((10, 0), "E_BAD_HEADER")],
)
def test_a_png_of_impossible_size(size: tuple[int, int], code: str) -> None:
    assert code_of(images.png_bomb(*size)) == code


@pytest.mark.parametrize(("height", "width"), [(20_000, 100), (100, 20_000)])
def test_a_jpeg_of_too_long_a_side(height: int, width: int) -> None:
    data = images.encode(Image.new("L", (width, height)))
    assert code_of(data) == "E_TOO_LARGE"
    assert decode_image(data, DecodeConfig(max_side=20_000)).pixels.shape == (height, width, 3)


def test_a_jpeg_without_lines() -> None:
    data = bytearray(images.jpeg())
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 7] = b"\0\0"
    assert code_of(bytes(data)) == "E_BAD_HEADER"


def test_a_webp_canvas_over_the_cap() -> None:
    data = bytearray(images.animated(2, "WEBP"))
    data[24:30] = b"\xff\xff\xff\xff\xff\xff"
    assert code_of(bytes(data)) == "E_TOO_LARGE"


def test_too_many_bytes() -> None:
    data = images.jpeg()
    assert code_of(data, DecodeConfig(max_bytes=len(data) - 1)) == "E_TOO_LARGE"
    decode_image(data, DecodeConfig(max_bytes=len(data)))


def test_thousands_of_scans() -> None:
    assert code_of(images.jpeg_of_many_scans(2000, side=1024)) == "E_TOO_COMPLEX"
    assert (decode_image(images.jpeg_of_many_scans(50, side=1024)).pixels == 128).all()


def test_too_many_chunks() -> None:
    data = images.png(2, 2, 8, 0, b"\0\7\7\0\7\7", images.png_chunk(b"prVt", b"") * 50)
    assert code_of(data, DecodeConfig(max_parts=40)) == "E_TOO_COMPLEX"
    assert (decode_image(data).pixels == 7).all()


def test_inflating_text_and_profiles_are_never_inflated() -> None:
    image = decode_image(images.png_text_bomb())
    assert (image.pixels == 7).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_wrong_checksum(kind: bytes) -> None:
    data = bytearray(images.encode(Image.fromarray(images.photo_pixels(9, 9)).quantize(8), "PNG"))
    start = data.find(kind)
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + length] ^= 1
    with pytest.raises(ImageDecodeError, match=f"{kind.decode()}.*checksum") as caught:
        decode_image(bytes(data))
    assert caught.value.code == "E_CORRUPT"


def test_a_png_whose_pixels_run_out() -> None:
    with pytest.raises(ImageDecodeError, match="holds 10 of 20 bytes of pixels") as caught:
        decode_image(images.png(4, 4, 8, 0, b"\0abcd\0abcd"))
    assert caught.value.code == "E_TRUNCATED"


def test_a_png_that_does_not_inflate() -> None:
    data = images.png(4, 4, 8, 0, b"\0abcd" * 4)
    start = data.find(b"IDAT")
    broken = images.png_chunk(b"IDAT", b"\x78\x9c\xff\xff\xff\xff")
    assert code_of(data[: start - 4] + broken + images.png_chunk(b"IEND", b"")) == "E_CORRUPT"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 5), (8, 9), (17, 33)])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_interlaced_rows_are_counted(size: tuple[int, int], mode: str) -> None:
    picture = Image.fromarray(images.photo_pixels(*size)).convert(mode)
    plain = images.encode(picture, "PNG")
    header = read_header(memoryview(plain), DecodeConfig())
    assert isinstance(header, PngHeader)
    compressed = b"".join(plain[c][8:-4] for c in header.chunks if plain[c][4:8] == b"IDAT")
    assert num_raw_bytes(header) == len(zlib.decompress(compressed))
    interlaced = dataclasses.replace(header, is_interlaced=True)
    passes = np.array(ADAM7_OF_8X8)[np.arange(size[0])[:, None] % 8, np.arange(size[1])[None, :] % 8]
    bits = header.bit_depth * {"1": 1, "L": 1, "P": 1, "RGB": 3, "RGBA": 4}[mode]
    rows = [(passes == p).sum(axis=1) for p in range(1, 8)]
    expected = sum(1 + -(-int(n) * bits // 8) for counts in rows for n in counts if n)
    assert num_raw_bytes(interlaced) == expected


@pytest.mark.parametrize(("depth", "color"), [(3, 0), (16, 3), (1, 2), (8, 5)])
def test_a_png_of_an_unknown_kind(depth: int, color: int) -> None:
    assert code_of(images.png(1, 1, depth, color, bytes(9))) == "E_BAD_HEADER"


def test_an_unknown_critical_chunk_is_refused() -> None:
    assert code_of(images.png(1, 1, 8, 0, b"\0\7", images.png_chunk(b"CgBI", b"\0\0\0\0"))) == "E_UNSUPPORTED"


@pytest.mark.parametrize(("offset", "value"), [(1, 0xC3), (1, 0xC5), (4, 12), (9, 2)])
def test_jpeg_kinds_that_are_not_decoded(offset: int, value: int) -> None:
    data = bytearray(images.jpeg())
    data[data.find(b"\xff\xc0") + offset] = value
    assert code_of(bytes(data)) == "E_UNSUPPORTED"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damaged_bytes_give_an_image_or_a_code(name: str, draw: st.DataObject) -> None:
    data = bytearray(WHOLE[name])
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(data), DecodeConfig(max_side=2000, max_pixels=10**6))
    except ImageDecodeError:
        return
    assert image.pixels.shape[2] == 3


# -- what lies behind the image


@pytest.mark.parametrize("name", WHOLE)
def test_trailing_data_is_noted_with_its_size(name: str) -> None:
    archive = b"PK\5\6" + bytes(18)
    for tail in (archive, images.jpeg(8, 8, seed=1)):
        plain, followed = decode_image(WHOLE[name]), decode_image(WHOLE[name] + tail)
        assert (followed.pixels == plain.pixels).all()
        assert followed.notes == (f"N_TRAILING_DATA:{len(tail)}", *plain.notes)


def test_a_thumbnail_inside_exif_is_not_the_image() -> None:
    data = images.with_exif(images.jpeg(24, 32), images.exif_block(None) + images.jpeg(8, 8, seed=1))
    image = decode_image(data)
    assert image.pixels.shape == (24, 32, 3)
    assert image.notes == ()


def test_stray_bytes_before_the_end_marker_change_no_pixel() -> None:
    data = images.jpeg()
    image = decode_image(data[:-2] + bytes(20) + data[-2:])
    assert image.notes == ("N_EXTRANEOUS_BYTES",)
    assert (image.pixels == decode_image(data).pixels).all()


def test_stray_bytes_do_not_excuse_damage() -> None:
    data = images.jpeg(240, 320)
    cut = data[: len(data) // 2] + b"\xff\xd0" + data[len(data) // 2 : -2]
    assert code_of(cut + bytes(20) + b"\xff\xd9") == "E_CORRUPT"


def test_a_jpeg_only_pillow_knows_is_noted() -> None:
    image = decode_image(images.jpeg_with_sampling(3, 1))
    assert image.notes == ("N_LENIENT_DECODER",)
    assert (image.pixels == 128).all()


def test_no_decoder_parses_the_metadata_of_such_a_jpeg() -> None:
    broken = struct.pack("<HHII", 0x011A, 5, 1, 0xFFFFFF00)  # a resolution beyond the end
    data = images.with_exif(images.jpeg_with_sampling(3, 1), images.exif_block(6, extra=(broken,)))
    image = decode_image(data)  # a warning of Pillow would fail this test
    assert (image.exif_orientation, image.notes) == (6, ("N_LENIENT_DECODER",))


def test_opaque_alpha_is_no_transparency() -> None:
    opaque = Image.fromarray(images.photo_pixels()).convert("RGBA")
    image = decode_image(images.encode(opaque, "PNG"))
    assert image.notes == ()
    assert (image.pixels == images.photo_pixels()).all()


def test_silent_truncation_in_this_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(OvsopsError, match="LOAD_TRUNCATED_IMAGES is on"):
        decode_image(WHOLE["png"])


# -- frames


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(image_format: str) -> None:
    image = decode_image(images.animated(7, image_format))
    assert image.num_frames == 7
    assert (image.pixels == 20).all()


def test_ten_thousand_frames_are_counted() -> None:
    image = decode_image(images.apng_of_many(10_000))
    assert image.num_frames == 10_000
    assert (image.pixels == 9).all()


def test_a_default_image_outside_the_animation_is_a_frame() -> None:
    control = images.png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2, 2, 0, 0, 1, 100, 0, 0))
    frame = images.png_chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(b"\0\x1e\x1e\0\x1e\x1e"))
    before = images.png_chunk(b"acTL", struct.pack(">II", 1, 0))
    image = decode_image(images.png(2, 2, 8, 0, b"\0\x09\x09\0\x09\x09", before, control + frame))
    assert image.num_frames == 2
    assert (image.pixels == 9).all()


# -- colours


def test_cmyk_is_converted_as_pillow_does() -> None:
    data = images.encode(Image.fromarray(images.photo_pixels()).convert("CMYK"), quality=95)
    image = decode_image(data)
    assert (image.pixels == pillow_rgb(data)).all()
    assert image.notes == ("N_CMYK",)


def test_adobe_inverted_cmyk_and_ycck_red() -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_image(images.encode(inks, quality=100)).pixels - np.array([255.0, 0, 0])).max() <= 2
    # The inks cyan 0, magenta 255, yellow 255 as luma and chroma, stored inverted; transform 2 says YCCK.
    luma_chroma = Image.new("CMYK", (16, 16), (255 - 179, 255 - 171, 255 - 1, 0))
    data = bytearray(images.encode(luma_chroma, quality=100))
    data[data.find(b"Adobe") + 11] = 2
    image = decode_image(bytes(data))
    assert np.abs(image.pixels - np.array([255.0, 0, 0])).max() <= 3
    assert (image.pixels == pillow_rgb(bytes(data))).all()


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    levels = [0, 128, 129, 255, 256, 32768, 65406, 65407, 65535]
    row = b"\0" + struct.pack(f">{len(levels)}H", *levels)
    image = decode_image(images.png(len(levels), 1, 16, 0, row))
    assert image.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255, 255]
    assert image.notes == ("N_16_BIT",)


def test_16_bit_colour_keeps_its_high_byte() -> None:
    image = decode_image(images.png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x12FF, 0x3400, 0xFFFF)))
    assert image.pixels.tolist() == [[[0x12, 0x34, 0xFF]]]


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [
        (1, 0b10110000, [255, 0, 255, 255]),
        (2, 0b00011011, [0, 85, 170, 255]),
    ],
)
def test_grey_of_few_bits(depth: int, row: int, expected: list[int]) -> None:
    image = decode_image(images.png(4, 1, depth, 0, bytes([0, row])))
    assert image.pixels[0, :, 1].tolist() == expected


def test_the_transparent_grey_becomes_white() -> None:
    transparent = images.png_chunk(b"tRNS", b"\0\1")
    image = decode_image(images.png(4, 1, 2, 0, bytes([0, 0b00011011]), transparent))
    assert image.pixels[0, :, 0].tolist() == [0, 255, 170, 255]
    assert image.notes == ("N_ALPHA_ON_WHITE",)
    row = b"\0" + struct.pack(">3H", 1000, 1001, 1002)
    image = decode_image(images.png(3, 1, 16, 0, row, images.png_chunk(b"tRNS", struct.pack(">H", 1001))))
    assert image.pixels[0, :, 0].tolist() == [4, 255, 4]


def test_the_transparent_colour_becomes_white() -> None:
    transparent = images.png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    image = decode_image(images.png(3, 1, 8, 2, b"\0" + bytes([1, 2, 3, 1, 2, 4, 9, 9, 9]), transparent))
    assert image.pixels[0].tolist() == [[255, 255, 255], [1, 2, 4], [9, 9, 9]]


def test_a_transparent_16_bit_colour_is_kept_and_noted() -> None:
    transparent = images.png_chunk(b"tRNS", struct.pack(">HHH", 0x0101, 0, 0))
    image = decode_image(images.png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x0101, 0, 0), transparent))
    assert image.pixels.tolist() == [[[1, 0, 0]]]
    assert image.notes == ("N_16_BIT", "N_TRANSPARENT_COLOR_IGNORED")


def test_a_palette_with_transparency_is_laid_on_white() -> None:
    palette = images.png_chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    transparent = images.png_chunk(b"tRNS", bytes([0, 102]))
    image = decode_image(images.png(3, 1, 8, 3, b"\0\0\1\2", palette + transparent))
    assert image.pixels[0].tolist() == [[255, 255, 255], [153, 255, 153], [0, 0, 255]]
    assert image.notes == ("N_ALPHA_ON_WHITE",)
    opaque = decode_image(images.png(3, 1, 8, 3, b"\0\0\1\2", palette))
    assert opaque.pixels[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize(
    ("color", "row", "expected"),
    [
        (4, bytes([0, 100, 255, 100, 0, 100, 51]), [[100] * 3, [255] * 3, [224] * 3]),
        (
            6,
            bytes([0, 255, 0, 0, 0, 255, 0, 0, 51, 255, 0, 0, 255]),
            [[255] * 3, [255, 204, 204], [255, 0, 0]],
        ),
    ],
)
def test_alpha_is_laid_on_white(color: int, row: bytes, expected: list[list[int]]) -> None:
    image = decode_image(images.png(3, 1, 8, color, row))
    assert image.pixels[0].tolist() == expected
    assert image.notes == ("N_ALPHA_ON_WHITE",)


def test_colours_under_a_transparent_webp_stay_hidden() -> None:
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(images.encode(hidden, "WEBP", lossless=True, exact=True)).pixels == 255).all()


# -- EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_the_exif_turn_is_applied_and_recorded(orientation: int, byte_order: str) -> None:
    plain = images.jpeg(24, 40)
    data = images.with_exif(plain, images.exif_block(orientation, byte_order=byte_order))
    image = decode_image(data)
    assert image.exif_orientation == orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (image.pixels == expected).all()
    assert image.pixels.flags.c_contiguous


def test_orientation_6_turns_clockwise() -> None:
    data = images.with_exif(images.encode(images.corners_pixels(), quality=95), images.exif_block(6))
    turned = decode_image(data).pixels
    assert turned.shape == (64, 48, 3)
    assert turned[4, 4].argmax() == 2  # top left was bottom left: blue
    assert turned[4, -4].argmax() == 0  # top right was top left: red


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_exif_of_png_and_webp(image_format: str) -> None:
    pixels = images.photo_pixels(8, 12)
    exif = Image.Exif()
    exif[0x0112] = 8
    image = decode_image(images.encode(pixels, image_format, exif=exif, lossless=True))
    assert image.exif_orientation == 8
    assert (image.pixels == np.rot90(pixels)).all()


@pytest.mark.parametrize(
    ("exif", "note"),
    [
        (images.exif_block(0), "N_EXIF_ORIENTATION"),
        (images.exif_block(9), "N_EXIF_ORIENTATION"),
        (images.exif_block(65535), "N_EXIF_ORIENTATION"),
        (b"garbage" * 9, "N_EXIF_UNREADABLE"),
        (b"II*\0\xff\xff\xff\x7f", "N_EXIF_UNREADABLE"),
        (images.exif_block(6)[:14], "N_EXIF_UNREADABLE"),
        (b"", None),
        (images.exif_block(None), None),
    ],
)
def test_a_bad_orientation_counts_as_1(exif: bytes, note: str | None) -> None:
    plain = images.jpeg()
    image = decode_image(images.with_exif(plain, exif))
    assert image.exif_orientation == 1
    assert image.notes == ((note,) if note else ())
    assert (image.pixels == decode_image(plain).pixels).all()


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_orientation_as_byte_short_or_long(kind: int) -> None:
    assert (
        decode_image(images.with_exif(images.jpeg(), images.exif_block(3, kind=kind))).exif_orientation == 3
    )


def test_broken_maker_notes_and_64_kb_of_exif_do_not_matter() -> None:
    maker_note = struct.pack("<HHII", 0x927C, 7, 0xFFFFFFFF, 0xFFFFFFF0)
    exif = images.exif_block(6, extra=(maker_note,))
    exif += b"\xff\xd9\xff\xda" * ((65_000 - len(exif)) // 4)
    image = decode_image(images.with_exif(images.jpeg(), exif))
    assert (image.exif_orientation, image.notes) == (6, ())


def test_exif_over_the_cap_is_not_read() -> None:
    data = images.with_exif(images.jpeg(), images.exif_block(6) + bytes(1000))
    image = decode_image(data, DecodeConfig(max_exif_bytes=1000))
    assert (image.exif_orientation, image.notes) == (1, ("N_EXIF_TOO_LARGE",))


def test_places_and_thumbnails_go_nowhere() -> None:
    exif = images.exif_block(3) + images.GPS_TEXT
    image = decode_image(images.with_exif(images.jpeg(), exif))
    assert images.GPS_TEXT not in pickle.dumps(image)


# -- sizes and config


@pytest.mark.parametrize("size", [(1, 1), (13, 13), (1, 300), (16_384, 2)])
def test_small_and_thin_images_are_decoded(size: tuple[int, int]) -> None:
    assert decode_image(images.encode(np.full((*size, 3), 90, np.uint8))).pixels.shape == (*size, 3)


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"decode\.max_side = 0"):
        DecodeConfig(max_side=0)
