"""Names of files as samples see them: key, field, extension, and which names are refused.

In an archive the key is the path up to the first dot after the last slash, as WebDataset has it:
`a/b.seg.png` has key `a/b` and field `seg.png`. In a plain folder, where dots are part of ordinary names,
the key is the path without its last extension. Keys keep their original text: case, spaces, `%2F` and
Unicode form are not touched.
"""

import re
import unicodedata

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})
"""What is read as an image, whatever the case; the content is checked when it is decoded."""
FOREIGN_IMAGE_EXTENSIONS = frozenset(
    {"gif", "bmp", "tif", "tiff", "jfif", "heic", "heif", "avif", "jp2", "jxl", "svg", "psd", "ico"}
)
"""Pictures that are not read: a sample that has no other image fails by name instead of vanishing."""
FOREIGN_IMAGE = "foreign_image"
"""Reason under which such files are counted among the ignored ones."""
UNREAD_PICTURES = "pictures of other kinds (HEIC, GIF, TIFF, ...): convert them to one of " + ", ".join(
    sorted(IMAGE_EXTENSIONS)
)
"""What a user is told of them, behind their number."""
SIDECAR_EXTENSIONS = frozenset({"json", "txt"})
PICKLE_EXTENSIONS = frozenset(
    {
        "pkl",
        "pickle",
        "pyd",
        "pt",
        "pth",
        "npy",
        "npz",
        "ckpt",
        "joblib",
        "dill",
        "ten",
        "bin",
        "mp",
        "msgpack",
    }
)
"""Serialised objects: never opened, counted as `pickle`."""

MAX_NAME_BYTES = 255

_KEY = re.compile(r"^((?:.*/|)[^./][^./]*)[.]([^/]*)$", re.DOTALL)
_RESERVED = re.compile(r"(?:^|/)__[^/]*__(?:$|/)")
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def extension_of(name: str) -> str:
    """Lower-case text after the last dot of the file name; "" without one."""
    base = name.rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[1].lower() if "." in base else ""


def archive_key(name: str) -> tuple[str, str] | None:
    """Key and field of an archive member; None for names without a field: no dot, hidden files,
    `__meta__`.
    """
    match = _KEY.match(name)
    if match is None or _RESERVED.search(name):
        return None
    return match[1], match[2]


def folder_key(name: str) -> str:
    """Key of a file in a folder: its path without the last extension."""
    extension = extension_of(name)
    return name[: -len(extension) - 1] if extension else name


def name_fault(name: bytes) -> str:
    """Why a member's name cannot become a key; "" when it can.

    Names become ids, links in reports and lines in logs, so what could leave a folder, break a line or
    reorder text is refused although nothing is ever extracted.
    """
    if not name:
        return "the name is empty"
    if len(name) > MAX_NAME_BYTES:
        return f"the name has {len(name)} bytes, {MAX_NAME_BYTES} are allowed"
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"the name is not UTF-8 (byte {error.start})"
    if text.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", text):
        return "the name is an absolute path"
    if ".." in re.split(r"[/\\]", text):
        return "the name climbs out with '..'"
    if text.isascii() and text.isprintable():
        return ""
    for character in text:
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES or character in _BIDI_CONTROLS:
            return f"the name holds the control character U+{ord(character):04X}"
    return ""


def escaped_name(name: bytes, max_chars: int = 200) -> str:
    """A hostile name as harmless text on one line: `\\xNN` and `\\uNNNN` for what cannot be shown."""
    text = name[: 4 * max_chars].decode("utf-8", "backslashreplace")
    shown = "".join(
        character if character.isprintable() and character not in _BIDI_CONTROLS else _escape(character)
        for character in text
    )
    if len(shown) > max_chars or len(name) > 4 * max_chars:
        return f"{shown[:max_chars]}...({len(name)} bytes)"
    return shown


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
