"""Take the README's pictures from the running local stack and the workspace: `python scripts/pictures.py` after `make demo`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from caco_assets.services.local_stack import free_port
from caco_assets.settings import load_settings

WIDTH, HEIGHT = 1500, 950
# wide enough for Dagster to write what each asset last did into its box
WIDE = {"width": 3000, "height": 1000}
GRAPH = {"x": 420, "y": 230, "width": 2540, "height": 560}


def _settle(page: Page, url: str, milliseconds: int) -> None:
    page.goto(url)
    page.wait_for_timeout(milliseconds)


def main() -> None:
    """Write `docs/images/*.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    settings = load_settings(options.profile)
    options.out.mkdir(parents=True, exist_ok=True)
    ports = {name: free_port(0) for name in ("dagster", "mlflow", "pages")}
    flags = [f"--{name}-port={port}" for name, port in ports.items()]
    stack = subprocess.Popen(
        [sys.executable, "-m", "caco_assets.cli", "up", "--profile", options.profile, *flags], stderr=subprocess.PIPE, text=True
    )
    assert stack.stderr is not None
    for line in stack.stderr:
        print(line, end="")
        if "Ctrl-C" in line:
            break
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            _settle(page, f"http://127.0.0.1:{ports['dagster']}/asset-groups", 9000)
            page.set_viewport_size(WIDE)
            page.get_by_text("Hide navigation").click()
            page.keyboard.press("Alt+e")  # open all groups
            page.wait_for_timeout(12_000)
            page.screenshot(path=options.out / "lineage.png", clip=GRAPH)
            page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            _settle(page, f"http://127.0.0.1:{ports['dagster']}/assets/encoder", 7000)
            page.screenshot(path=options.out / "encoder_asset.png")
            _settle(page, f"http://127.0.0.1:{ports['mlflow']}/#/models/{settings.registry.model}", 7000)
            page.screenshot(path=options.out / "registry.png")
            _settle(page, (settings.paths.report / "report.html").as_uri(), 1500)
            page.screenshot(path=options.out / "report.png")
            page.screenshot(path=options.out / "report_full.png", full_page=True)
            browser.close()
    finally:
        stack.terminate()
        stack.wait(30)


if __name__ == "__main__":
    main()
