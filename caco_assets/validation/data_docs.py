"""The data docs: Great Expectations' static site of the last results, self-contained so that it opens from disk.

Great Expectations' own pages load styles, scripts and a tracking image from other hosts, and one of those scripts draws the index.
Here they are removed: the pages are plain HTML with a small stylesheet, and the index is our own.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from caco_assets.core.atomic import write_atomic
from caco_assets.core.markup import escape_tags

STYLE = """
body{font-family:system-ui,sans-serif;margin:0 auto;max-width:76rem;padding:1rem;color:#1b2a33;background:#fff}
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{border:1px solid #cfd8dc;padding:.35rem .6rem;text-align:left;
vertical-align:top}th{background:#eef2f4}a{color:#0b5d7a}.ok{color:#1b6e3c}.blocking{color:#a3201d;font-weight:600}
.warning{color:#8a5a00;font-weight:600}.navbar,.sidebar,nav,.modal,footer,.sticky,[data-toggle=collapse]{display:none}.collapse{display:block}
.badge{background:#eef2f4;border-radius:.2rem;padding:0 .3rem}.fa-check-circle:before,.text-success:before{content:"\\2713 "}
.fa-times:before,.text-danger:before{content:"\\2717 "}.fa-exclamation-triangle:before{content:"\\26A0 "}
"""
POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
"""The pages run and load nothing, also when they are opened from disk."""
_REMOTE = re.compile(
    r"<script\b[^>]*>.*?</script>|<link\b[^>]*>|<img\b[^>]*https?://[^>]*>|<style\b[^>]*>.*?</style>", re.DOTALL | re.IGNORECASE
)
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def build_site(folder: Path, results: list[dict[str, Any]], gx_results: list[dict[str, Any]]) -> Path:
    """Write the site below `folder`, from saved results alone: the same results give the same bytes.

    Args:
        folder: `settings.paths.data_docs`; its `results/` is not changed.
        results: the saved results of `stage.validate`, one for each product, in the order of the chain.
        gx_results: Great Expectations' validation results of all their tables.

    Returns:
        `index.html`.
    """
    scratch = folder / f".building-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    # its pages show values of the data as they are
    _render(scratch, escape_tags(gx_results))
    # named after the table by `_render`; the folders above it are the suite's name cut at its dots
    pages = {path.stem: path for path in scratch.glob("validations/**/*.html")}
    for page in scratch.rglob("*.html"):
        page.write_text(_plain(page.read_text()))
    links = {table: path.relative_to(scratch).as_posix() for table, path in pages.items()}
    for part in ("expectations", "validations"):
        shutil.rmtree(folder / part, ignore_errors=True)
        if (scratch / part).exists():
            (scratch / part).replace(folder / part)
    shutil.rmtree(scratch)
    index = folder / "index.html"
    write_atomic(index, _index(results, links))
    return index


def _render(scratch: Path, gx_results: list[dict[str, Any]]) -> None:
    import great_expectations as gx
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import ExpectationSuiteIdentifier, ValidationResultIdentifier
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    from caco_assets.validation.runner import in_memory

    context = in_memory(str(scratch))
    for result in gx_results:
        name = result["suite_name"]
        wanted = [ExpectationConfiguration(**_config(one["expectation_config"])) for one in result["results"]]
        context.suites.add(gx.ExpectationSuite(name=name, expectations=[config.to_domain_obj() for config in wanted]))
        run_id = RunIdentifier(**result["meta"]["run_id"])
        batch = result["meta"]["active_batch_definition"]["data_asset_name"]
        key = ValidationResultIdentifier(ExpectationSuiteIdentifier(name), run_id, batch)
        context.validation_results_store.set(key, ExpectationSuiteValidationResult(**_revived(result)))
    context.build_data_docs()


def _config(config: dict[str, Any]) -> dict[str, Any]:
    kwargs = {name: value for name, value in config["kwargs"].items() if name != "batch_id"}
    return {**{name: config[name] for name in ("type", "meta", "description", "severity")}, "kwargs": kwargs}


def _revived(result: dict[str, Any]) -> dict[str, Any]:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    rows = [
        ExpectationValidationResult(
            success=one["success"],
            expectation_config=ExpectationConfiguration(**one["expectation_config"]),
            result=one["result"],
            meta=one["meta"],
            exception_info=one["exception_info"],
        )
        for one in result["results"]
    ]
    meta = {**result["meta"], "run_id": RunIdentifier(**result["meta"]["run_id"])}
    kept = ("success", "statistics", "suite_name", "suite_parameters")
    return {**{name: result[name] for name in kept}, "results": rows, "meta": meta}


def _plain(text: str) -> str:
    """A page without anything from another host, and without the random names that would change with every build."""
    text = _REMOTE.sub("", text)
    names: dict[str, str] = {}
    text = _UUID.sub(lambda match: names.setdefault(match[0], f"n{len(names)}"), text)
    return text.replace("</head>", f"{POLICY}<style>{STYLE}</style></head>", 1)


def _index(results: list[dict[str, Any]], links: dict[str, str]) -> str:
    rows = []
    for result in results:
        state = "blocking" if result["blocking_failed"] else "warning" if result["warnings"] else "ok"
        label = {"blocking": "stopped", "warning": "passed with warnings", "ok": "passed"}[state]
        lines = [("blocking", line) for line in result["blocking_failed"]] + [("warning", line) for line in result["warnings"]]
        found = "".join(f'<li class="{kind}">{html.escape(line)}</li>' for kind, line in lines)
        tables = dict.fromkeys(row["table"] for row in result["table"])
        product, when = html.escape(result["product"]), html.escape(result["validated_at"])
        pages = ", ".join(f'<a href="{html.escape(links[name])}">{html.escape(name)}</a>' for name in tables if name in links)
        rows.append(
            f'<tr><th scope="row">{product}</th><td class="{state}">{label}</td><td>{int(result["evaluated"])}</td>'
            f"<td><ul>{found}</ul></td><td>{pages}</td><td>{when}</td></tr>"
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("product", "state", "expectations", "found", "pages", "validated"))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"{POLICY}<title>Data docs</title><style>{STYLE}</style></head><body><h1>Data docs</h1>"
        "<p>The expectations of each data product and the outcome of its last validation.</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></body></html>\n"
    )


def read_results(folder: Path, products: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The saved results of the products that have been validated, and Great Expectations' own, both in the order given."""
    known = [name for name in products if (folder / "results" / f"{name}.json").exists()]
    results = [json.loads((folder / "results" / f"{name}.json").read_text()) for name in known]
    details = [json.loads((folder / "results" / "gx" / f"{name}.json").read_text()) for name in known]
    return results, [result for product in details for result in product]
