"""From a recipe's `ask` to what the stage needs: the vocabulary's words, the checkpoint that checks, and the key."""

import hashlib
import json
from dataclasses import asdict, replace

from jobs.exits import PreflightError
from jobs.label_recipe import LabelRecipe
from ovsops.annotators.names import first_prompts, group_rivals
from ovsops.backbones.checkpoint import pin_checkpoints, resolve
from ovsops.backbones.fgclip2_model import read_fgclip2_config
from ovsops.errors import ConfigError, VocabularyError
from ovsops.regions.attributes import load_attributes
from ovsops.regions.vlm_dialogue import caption_request, verify_request
from ovsops.text.vocabulary import Vocabulary
from pipelines.ask_config import AskConfig, Asking
from pipelines.counted import counted


def pin_asked(config: AskConfig | None) -> AskConfig | None:
    """The same with the checking checkpoint found on disk and its SHA-256. Raises `CheckpointError`."""
    if config is None or config.ground is None:
        return config
    place = resolve(config.ground.fgclip2)
    read_fgclip2_config(place)  # refuses another model
    return replace(config, ground=pin_checkpoints(config.ground))


def asked_checkpoints(config: AskConfig | None) -> dict[str, str]:
    """Identity of the checking checkpoint, by its role in a manifest."""
    if config is None or config.ground is None:
        return {}
    return {"ask.fgclip2": resolve(config.ground.fgclip2).identity}


def check_key(recipe: LabelRecipe) -> None:
    """Raise `PreflightError` where the environment does not hold the endpoint's key; its value is never shown."""
    if recipe.ask is None:
        return
    try:
        recipe.ask.endpoint.key()
    except ConfigError as error:
        raise PreflightError(f"{error}; export it before the start, on every machine that asks") from error


def asking_of(recipe: LabelRecipe, vocabulary: Vocabulary) -> Asking | None:
    """What is asked, with the vocabulary's words.

    Raises `VocabularyError` where captions shall be checked in a language without attribute words, or in which a class
    has no prompt.
    """
    if recipe.ask is None:
        return None
    language = recipe.ask.language or recipe.languages[0]
    words = first_prompts(vocabulary, tuple(dict.fromkeys((language, *recipe.languages))))
    if recipe.ask.ground is not None:
        load_attributes(recipe.ask.ground.words).check_language(language)
        foreign = [vocabulary.classes[each.label].name for each in words if each.language != language]
        if foreign:
            raise VocabularyError(
                f"vocabulary {vocabulary.name}: captions are written in {language} and checked by their nouns, and "
                f"{', '.join(foreign[:5])} has no prompt there; add one, set ask.language, or leave out ask.ground"
            )
    nouns = {spec.id: each.prompt for spec, each in zip(vocabulary.classes, words, strict=True)}
    rivals = {
        spec.id: tuple(words[place].prompt for place in group)
        for spec, group in zip(vocabulary.classes, group_rivals(vocabulary), strict=True)
    }
    return Asking(
        config=recipe.ask,
        language=language,
        nouns=nouns,
        rivals=rivals,
        device="cuda" if recipe.ask_on.num_gpus > 0 else "cpu",
    )


def questions_identity() -> str:
    """Digest of the words that are asked and of the grammar of answers: another digest, other questions."""
    asked = [
        asdict(request)
        for view in ("crop", "box")
        for request in (
            caption_request("noun", languages=["en", "zh"], view=view),
            verify_request("noun", rivals=["rival"], view=view),
        )
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def ask_facts(recipe: LabelRecipe) -> list[tuple[str, str]]:
    """What `plan` and `doctor` say about it; shows no key."""
    ask = recipe.ask
    if ask is None:
        return []
    wanted = " and ".join(
        name for name, is_wanted in (("captions", ask.captions), ("verdicts", ask.verify)) if is_wanted
    )
    at_once = recipe.ask_on.actors * recipe.ask_on.blocks_at_once * ask.endpoint.concurrency
    key = ask.endpoint.key_from_env
    cost = (
        "no limit on its cost"
        if ask.endpoint.max_cost is None
        else f"{ask.endpoint.max_cost:g} a worker at most"
    )
    checked = "" if ask.ground is None else ", captions checked by FG-CLIP 2"
    return [
        (
            "endpoint",
            f"{ask.endpoint.model} at {ask.endpoint.completions_url}, {counted(at_once, 'questions')} at a time,"
            f" {f'key from {key}' if key else 'no key'}, {cost}",
        ),
        (
            "is asked for",
            f"{wanted} of {ask.which} regions, {ask.max_regions} an image at most ({ask.first} first),"
            f" view {ask.picture.view}{checked}",
        ),
    ]
