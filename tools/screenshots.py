"""docs/page-*.png: the page as it looks, of a gallery and a photo.

    resight demo
    resight index demo/run/embedder demo/images/index.csv --out demo/shop --level image
    resight gallery calibrate demo/shop
    python tools/screenshots.py demo/shop PHOTO [--out docs]

Starts `resight serve` itself; needs playwright, pillow and chromium ($CHROMIUM). Letters are those
of the machine: fonts-inter looks best.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync"
)
LARGEST = 200 * 1024
# name: width, height, scale, colours, what is shown
SHOTS = {
    "page-desktop": (1280, 820, 1, "light", "hits"),
    "page-phone": (390, 800, 2, "light", "hits"),
    "page-dark": (1280, 820, 1, "dark", "start"),
    "page-map": (1280, 820, 1, "light", "map"),
}


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gallery", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    told = parser.parse_args()
    command = [sys.executable, "-m", "resight.cli.main", "serve", str(told.gallery), "--port", "0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert served.stdout is not None
        address = served.stdout.readline().strip()
        with sync_playwright() as play:
            chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
            browser = play.chromium.launch(executable_path=chromium, args=FLAGS.split())
            for name, (width, height, scale, scheme, view) in SHOTS.items():
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    device_scale_factor=scale,
                    color_scheme=scheme,  # type: ignore[arg-type]
                    reduced_motion="reduce",
                    is_mobile=width < 600,
                    has_touch=width < 600,
                )
                page = context.new_page()
                page.goto(address)
                show(page, view, told.photo)
                path = told.out / f"{name}.png"
                path.write_bytes(small(page.screenshot()))
                print(path, f"{path.stat().st_size // 1024} KB")
                context.close()
            browser.close()
    finally:
        served.terminate()
        served.wait()


def show(page: Page, view: str, photo: Path) -> None:
    """Bring a view up, and wait for all its pictures."""
    page.locator(".finder").wait_for()
    if view == "hits":
        page.locator("input[type=file][multiple]").last.set_input_files(str(photo))
        page.locator(".results:not([aria-busy]) .hit").first.wait_for()
    elif view == "map":
        page.get_by_role("link", name="Map").click()
        page.locator(".map canvas").wait_for(timeout=600_000)  # laid out at the first time
        page.wait_for_timeout(2000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)


def small(png: bytes) -> bytes:
    """Fewer colours, until the file is no larger than LARGEST."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64):
        out = io.BytesIO()
        picture.quantize(colours, kmeans=1, dither=Image.Dither.NONE).save(
            out, "PNG", optimize=True
        )
        if out.tell() <= LARGEST:
            break
    return out.getvalue()


if __name__ == "__main__":
    main()
