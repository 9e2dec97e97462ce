"""What a terminal shows of a run over committed shards: what became of its rows, and what a user does now."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from jobs.codes_page import batch_codes, endpoint_codes
from jobs.logs import escape_controls
from jobs.mine_recipe import MineRecipe
from jobs.negatives_recipe import NegativesRecipe
from jobs.recipe import LoadedUnits
from ovsops.negatives.candidates import DROPS, TOO_FEW
from ovsops.negatives.config import REASONS as NEGATIVE_REASONS
from ovsops.negatives.llm_replies import REPLY_FAULTS
from pipelines.counted import counted
from pipelines.embedding import REASONS as VECTOR_REASONS
from pipelines.training_sets.drops import REASONS as SET_REASONS

_TOO_FEW = {TOO_FEW: "fewer than ten candidates are left"}


def unit_table(summary: Mapping[str, Any]) -> Table:
    """What became of regions or images, for a terminal."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    shards = summary["shards"]
    pending = f"{shards['pending']} pending" if shards["pending"] else ""
    table.add_row("shards", str(shards["committed"]), pending)
    if "with_negatives" in summary.get("regions", {}):
        _add_negatives(table, summary)
    elif "embedded" in summary.get("regions", {}):
        _add_pairs(table, summary)
    else:
        _add_set(table, summary)
    for name, message in shards["failed"].items():
        table.add_row("shard", "", escape_controls(f"{name}: {message}"))
    return table


def _add_negatives(table: Table, summary: Mapping[str, Any]) -> None:
    rows = summary["regions"]
    table.add_row("regions", str(rows["read"]), "")
    table.add_row("with negatives", str(rows["with_negatives"]), _listed(summary["types"], 6))
    reasons = {str(code): says for code, says in NEGATIVE_REASONS.items()} | _TOO_FEW | _unanswered()
    _add_reasons(table, rows["by_reason"], reasons)
    for code, count in summary["candidates_dropped"].items():
        table.add_row(f"candidates {code}", str(count), DROPS.get(code, "") + " (another took its place)")
    if "llm" in summary:
        _add_model(table, summary["llm"], summary["sources"])


def _add_model(table: Table, llm: Mapping[str, Any], sources: Mapping[str, int]) -> None:
    """What a language model was asked, and what it cost."""
    spent, outcomes = llm["vllm" if "vllm" in llm else "endpoint"], llm["outcomes"]
    table.add_row("asked", str(llm["asked"]), f"regions, {spent['requests']} requests to {llm['model']}")
    says = {
        "model": "by it alone",
        "both": "by both",
        "rule": "by rule after all",
        "none": "without negatives",
    }
    parts = ", ".join(f"{outcomes[name]} {text}" for name, text in says.items() if name in outcomes)
    table.add_row(
        "its negatives", str(sources.get("llm", 0)), f"of {sum(sources.values())}; regions: {parts}"
    )
    for code, count in llm["unanswered"].items():
        table.add_row(f"no answer {code}", str(count), _unanswered().get(code, ""))
    for code, count in llm["refused"].items():
        table.add_row(f"its words {code}", str(count), REPLY_FAULTS.get(code, ""))
    price = f"cost {llm['cost']:g}" if llm["cost"] else "without prices"
    table.add_row("tokens", str(spent["input_tokens"] + spent["output_tokens"]), price)


def _unanswered() -> dict[str, str]:
    return endpoint_codes() | batch_codes()


def _add_pairs(table: Table, summary: Mapping[str, Any]) -> None:
    rows = summary["regions"]
    table.add_row("regions", str(rows["read"]), "")
    table.add_row("with a vector", str(rows["embedded"]), f"of {counted(summary['images'], 'images')}")
    _add_reasons(table, rows["by_reason"], VECTOR_REASONS)
    for kind, count in summary.get("pairs", {}).items():
        table.add_row(f"{kind} pairs", str(count), "")
    for pair in summary.get("confusions", [])[:5]:
        says = f"{pair['class']} near {pair['other']} ({pair['kind']}, mean score {pair['mean_score']:.3f})"
        table.add_row("", str(pair["count"]), says)


def _add_set(table: Table, summary: Mapping[str, Any]) -> None:
    rows, content = summary["images"], summary["set"]
    table.add_row("images", str(rows["read"]), "")
    table.add_row("in the set", str(rows["kept"]), _listed(content["splits"], 3))
    table.add_row("regions", str(content["regions"]), f"{content['regions_with_negatives']} with negatives")
    _add_reasons(table, summary["left_out"], SET_REASONS)
    for name, report in summary.get("sets", {}).items():
        verdict = "valid" if report["valid"] else f"NOT VALID: {', '.join(report['broken'])}"
        table.add_row(name, str(report["files"]), f"files; {verdict}")


def _add_reasons(table: Table, counts: Mapping[str, int], meanings: Mapping[str, str]) -> None:
    for code, count in counts.items():
        table.add_row(code, str(count), meanings.get(code, ""))


def _listed(counts: Mapping[str, int], most: int) -> str:
    return ", ".join(f"{count} {name}" for name, count in list(counts.items())[:most])


def unit_next_steps(summary: Mapping[str, Any], loaded: LoadedUnits) -> list[str]:
    """What a user does now."""
    output = loaded.recipe.output
    steps = [f"over the limits: {reason}" for reason in summary["over_limits"]]
    if summary["shards"]["pending"]:
        return [*steps, "run the same recipe again: it goes on with the shards that are not done"]
    if isinstance(loaded.recipe, NegativesRecipe):
        steps.append(f"negatives: {output}/negatives (pandas.read_parquet reads the folder)")
        if "audit" in summary:
            steps.append(f"read {summary['audit']['rows']} of them: {output}/audit.csv")
            steps.append(f"beside their pictures: ovsops report {loaded.recipe.labels} --beside {output}")
        return [*steps, f"next: a dataset recipe with `negatives: {output}`"]
    if isinstance(loaded.recipe, MineRecipe):
        for kind in summary.get("mined", {}):
            steps.append(f"{kind} pairs: {output}/mined/{kind} (pandas.read_parquet reads the folder)")
        return [*steps, f"confused classes: {output}/confusions.parquet"]
    for name in summary.get("sets", {}):
        steps.append(f"set: {output}/{name}")
    return [*steps, f"what became of every image: {output}/samples"]
