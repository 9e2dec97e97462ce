"""BERT's word pieces, as the text side of Grounding DINO reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ovsops.backbones.tokenizers import read_tokenizer
from ovsops.errors import CheckpointError

BEGIN, END, STOP, QUESTION = 101, 102, 1012, 1029
"""[CLS], [SEP], "." and "?": Grounding DINO has these ids in its code, and tokens attend only to those between two of
them.
"""
SEPARATORS = frozenset({BEGIN, END, STOP, QUESTION})
SEPARATOR_WORDS = frozenset({".", "?"})
"""Those of them that a text can hold."""
_SPECIALS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": BEGIN, "[SEP]": END, ".": STOP, "?": QUESTION}


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


def wordpiece_vocabulary(known: Sequence[str]) -> tuple[str, ...]:
    """Tokens in the order of their ids, up to the last separator; `known` come first, free places are named as in BERT.

    Full stop and question mark have their own places and may not be among `known`.
    """
    tokens = [f"[unused{place}]" for place in range(QUESTION + 1)]
    for token, place in _SPECIALS.items():
        tokens[place] = token
    assert len(known) < STOP - END
    assert _SPECIALS.keys().isdisjoint(known)
    tokens[END + 1 : END + 1 + len(known)] = known
    return tuple(tokens)


def write_wordpieces(folder: Path, known: Sequence[str]) -> None:
    """A tokenizer.json of uncased BERT's kind and separators that knows these pieces."""
    vocabulary = {token: number for number, token in enumerate(wordpiece_vocabulary(known))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", BEGIN), ("[SEP]", END)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
