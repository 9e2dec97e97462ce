"""BERT's word pieces, as the text side of Grounding DINO reads them."""

from dataclasses import dataclass
from pathlib import Path

from ovsops.backbones.tokenizers import read_tokenizer
from ovsops.errors import CheckpointError

BEGIN, END, STOP, QUESTION = 101, 102, 1012, 1029
"""[CLS], [SEP], "." and "?": Grounding DINO has these ids in its code, and tokens attend only to those between two of
them.
"""
SEPARATORS = frozenset({BEGIN, END, STOP, QUESTION})


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A text in word pieces, without [CLS] and [SEP]."""

    token_ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    """First character and the one behind the last, in the text as given, of each piece."""


class WordPieces:
    """The tokenizer.json of a checkpoint folder, which must be that of uncased BERT in its separators."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = read_tokenizer(folder)
        expected = {"[CLS]": BEGIN, "[SEP]": END, ".": STOP, "?": QUESTION}
        found = {token: self.tokenizer.token_to_id(token) for token in expected}
        if found != expected:
            raise CheckpointError(
                f"checkpoint {folder}: the tokenizer has the separators {found}, the detector's code expects "
                f"{expected}; take the tokenizer.json of bert-base-uncased"
            )
        self.unknown: int | None = self.tokenizer.token_to_id("[UNK]")

    def __call__(self, text: str) -> Pieces:
        """Pieces of a text; words between spaces do not influence each other."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return Pieces(token_ids=tuple(encoding.ids), offsets=tuple(encoding.offsets))
