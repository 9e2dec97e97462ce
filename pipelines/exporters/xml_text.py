"""Text of others in XML 1.0: what XML cannot hold is replaced, and counted."""

import re

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Anything but the characters of XML 1.0, section 2.2."""


def xml_text(text: str) -> tuple[str, int]:
    """The text with U+FFFD for each character that XML 1.0 has no way to write, and how many these were."""
    return _FORBIDDEN.subn("�", text)
