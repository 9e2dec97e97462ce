"""Encoded rows in, the same rows out with an endpoint's captions and verdicts about their regions.

A question without an answer costs itself alone: the region says what it said before and gets `R_NO_ANSWER`, the notes
of its image count the code (`E_ENDPOINT_TIMEOUT:3`), and the row stays labelled.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ovsops.annotators.grounder import CaptionGrounder, WrittenCaption
from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.errors import ImageDecodeError
from ovsops.images.decode import DecodeConfig, DecodedImage
from ovsops.images.decode_pool import DecodePool
from ovsops.regions.reasons import NO_ANSWER
from ovsops.regions.said import DETECTOR
from ovsops.regions.vlm_dialogue import (
    VlmAnswer,
    VlmCaption,
    caption_request,
    parse_answer,
    parse_caption,
    verify_request,
)
from pipelines.ask_config import NOT_ASKED, UNSUPPORTED, Asking, choose_regions
from pipelines.endpoint import Endpoint, Question
from pipelines.endpoint_config import BUDGET_CODE, EndpointCounts, EndpointError
from pipelines.records import decision_of
from pipelines.region_picture import region_picture
from pipelines.rows import ASKED_ROW, IMAGE_FIELD
from pipelines.spans import Stopwatch
from pipelines.stage import Stage

_ROUND_QUESTIONS = 8
"""Questions of a round for each that may wait at a time: the slow ones at its end hold up few others."""
_ROUND_BYTES = 128 << 20
"""Pictures and pixels of a round at most; one image may be more."""

Record = dict[str, Any]


@dataclass(eq=False)
class _Image:
    """An image whose regions are asked about, and what became of that."""

    place: int
    records: list[Record]
    pixels: np.ndarray | None = None
    """Only where captions are checked."""
    captions: list[tuple[Record, VlmCaption]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class _Round:
    """Questions that are asked together."""

    images: list[_Image] = field(default_factory=list)
    about: list[tuple[_Image, Record]] = field(default_factory=list)
    questions: list[Question[Any]] = field(default_factory=list)
    num_bytes: int = 0
    counts: EndpointCounts = field(default_factory=EndpointCounts)


class AskStage(Stage):
    """Captions and verdicts by a vision-language model. Takes the images out of the rows.

    Unlike other stages it may say something else when it sees a row again: models do.
    """

    name = "ask"

    def __init__(self, asking: Asking, decode: DecodeConfig, *, decode_timeout_s: float) -> None:
        self.asking, self.decode, self.decode_timeout_s = asking, decode, decode_timeout_s

    def setup(self) -> None:
        """Read the key, start a decoder, load who checks captions."""
        config, ground = self.asking.config, self.asking.config.ground
        self.endpoint = Endpoint(config.endpoint)
        self.decoder = DecodePool(self.decode, num_workers=1, timeout_s=self.decode_timeout_s)
        self.failures_in_a_row = 0
        self.lock = threading.Lock()  # blocks may run side by side
        self.grounder = None
        if ground is not None:
            device = self.asking.device
            if device == "cpu":
                torch.set_num_threads(1)
            self.grounder = CaptionGrounder(
                FgClip2(resolve(ground.fgclip2), device=device, dtype=torch.float32),
                ground,
                language=self.asking.language,
                words=ground.words,
                max_phrases=ground.max_phrases,
                max_patches=ground.max_patches,
            )

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of `ASKED_ROW`."""
        watch = Stopwatch()
        regions: list[list[Record] | None] = batch.column("regions").to_pylist()
        notes: list[list[str]] = batch.column("notes").to_pylist()
        asked: list[str | None] = [None] * batch.num_rows
        images = []
        for place, records in enumerate(regions):
            chosen, num_left_out = choose_regions(records or (), self.asking.config)
            if num_left_out:
                notes[place].append(f"{NOT_ASKED}:{num_left_out}")
            if chosen:
                images.append(_Image(place, chosen))
        for some in self._rounds(images, batch.column(IMAGE_FIELD.name).combine_chunks()):
            self._ask(some)
            for image in some.images:
                notes[image.place] += [f"{code}:{count}" for code, count in sorted(image.codes.items())]
            asked[some.images[0].place] = some.counts.to_json()
        columns: dict[str, Any] = {
            name: batch.column(name) for name in ASKED_ROW.names if name in batch.column_names
        }
        columns |= {"regions": regions, "notes": notes, "asked": asked}
        columns |= watch.columns(self.name, batch.num_rows)
        yield pa.table({name: columns[name] for name in ASKED_ROW.names}, schema=ASKED_ROW)

    def _rounds(self, images: Sequence[_Image], data: Any) -> Iterator[_Round]:
        """Images with their questions, as many as are asked together; a decoder runs ahead."""
        enough = _ROUND_QUESTIONS * self.asking.config.endpoint.concurrency
        this = _Round()
        encoded = (memoryview(data[image.place].as_buffer()) for image in images)
        for image, decoded in zip(images, self.decoder.map(encoded), strict=True):
            self._add(this, image, decoded)
            if len(this.questions) >= enough or this.num_bytes >= _ROUND_BYTES:
                yield this
                this = _Round()
        if this.images:
            yield this

    def _add(self, this: _Round, image: _Image, decoded: DecodedImage | ImageDecodeError) -> None:
        this.images.append(image)
        if isinstance(decoded, ImageDecodeError):
            # It was decoded once before: a crowded machine. No question about it can be asked.
            config = self.asking.config
            num_questions = len(image.records) * (config.captions + config.verify)
            this.counts.questions += num_questions
            this.counts.failed[decoded.code] += num_questions
            image.codes[decoded.code] += num_questions
            for record in image.records:
                _mark_unanswered(record)
            return
        for record in image.records:
            for question in self._questions(decoded.pixels, record):
                this.about.append((image, record))
                this.questions.append(question)
                this.num_bytes += len(question.jpeg or b"")
        if self.grounder is not None:
            image.pixels = decoded.pixels
            this.num_bytes += decoded.pixels.nbytes

    def _questions(self, pixels: np.ndarray, record: Mapping[str, Any]) -> Iterator[Question[Any]]:
        asking, picture = self.asking, self.asking.config.picture
        jpeg = region_picture(pixels, _corners(record), picture)
        if asking.config.captions:
            noun = asking.nouns[record["category_id"]]
            yield Question(
                dialogue=caption_request(noun, languages=[asking.language], view=picture.view),
                jpeg=jpeg,
                parse=self._parse_caption,
            )
        if asking.config.verify:
            rivals = [asking.nouns[rival["category_id"]] for rival in record["rivals"]]
            yield Question(
                dialogue=verify_request(record["prompt"], rivals=rivals, view=picture.view),
                jpeg=jpeg,
                parse=parse_answer,
            )

    def _parse_caption(self, text: str) -> VlmCaption:
        return parse_caption(text, languages=[self.asking.language])[self.asking.language]

    def _ask(self, this: _Round) -> None:
        """Ask, and put what is answered into the records."""
        answers = self.endpoint.ask_all(this.questions, this.counts)
        self._note_failures(answers)
        for (image, record), answer in zip(this.about, answers, strict=True):
            if isinstance(answer, EndpointError):
                image.codes[answer.code] += 1
                _mark_unanswered(record)
            elif isinstance(answer, VlmAnswer):
                record |= {
                    "verdict": answer.answer,
                    "verdict_margin": None,
                    "verdict_source": self.asking.config.endpoint.source,
                }
                record["decision"] = decision_of(record)
            elif self.grounder is None:
                _caption(record, answer.short, answer.long, self.asking.config.endpoint.source)
            else:
                image.captions.append((record, answer))
        for image in this.images:
            if image.captions:
                self._ground(image)

    def _note_failures(self, answers: Sequence[Any]) -> None:
        """End the run where nobody answers any more; a cost that is spent is as it was wished."""
        with self.lock:
            for answer in answers:
                if not isinstance(answer, EndpointError):
                    self.failures_in_a_row = 0
                    continue
                self.failures_in_a_row += answer.code != BUDGET_CODE
                if self.failures_in_a_row >= self.asking.config.stop_after:
                    raise EndpointError(
                        answer.code,
                        f"{self.failures_in_a_row} questions in a row got no answer (ask.stop_after), the last one:"
                        f" {answer}. Committed shards stay; when the endpoint answers again, run the recipe again",
                    )

    def _ground(self, image: _Image) -> None:
        """Captions of one image, without what it does not support."""
        grounder = self.grounder
        if grounder is None or image.pixels is None:
            raise AssertionError("captions are checked where nobody was loaded for it")
        boxes = torch.tensor([_corners(record) for record, _ in image.captions], dtype=torch.float32)
        written = [self._written(record, caption) for record, caption in image.captions]
        with self.lock:
            regions = grounder.see_regions(image.pixels, boxes)
            found = grounder.ground(regions, written, source=self.asking.config.endpoint.source)
        image.pixels = None
        num_unsupported = 0
        for (record, _), words, caption in zip(image.captions, written, found, strict=True):
            if caption is not None:
                _caption(record, caption.short, caption.long, caption.source)
                continue
            num_unsupported += 1
            if record["caption_short"] is None:
                _caption(record, words.noun, words.noun, DETECTOR)
        if num_unsupported:
            image.codes[UNSUPPORTED] += num_unsupported

    def _written(self, record: Mapping[str, Any], caption: VlmCaption) -> WrittenCaption:
        nouns = self.asking.nouns
        own = record["category_id"]
        rivals = [nouns[rival["category_id"]] for rival in record["rivals"]]
        return WrittenCaption(
            short=caption.short,
            long=caption.long,
            noun=nouns[own],
            rivals=tuple(dict.fromkeys([*rivals, *self.asking.rivals[own]])),
        )


def _corners(record: Mapping[str, Any]) -> tuple[float, float, float, float]:
    x, y, width, height = record["bbox"]
    return x, y, x + width, y + height


def _caption(record: Record, short: str, long: str, source: str) -> None:
    record |= {"caption_short": short, "caption_long": long, "caption_source": source}


def _mark_unanswered(record: Record) -> None:
    record["reason_codes"] = sorted({*record["reason_codes"], NO_ANSWER})
