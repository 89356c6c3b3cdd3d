"""Pictures of a study's page of features and of its report, for the README: `make pictures`."""

import sys
import time
from pathlib import Path

from browser import SECONDS, Page


def wait_for(page: Page, condition: str) -> None:
    end = time.monotonic() + SECONDS
    while not page.ask(condition):
        assert time.monotonic() < end, f"waited in vain for {condition}"
        time.sleep(0.1)


def features(study: Path, picture: Path) -> None:
    """The SAE of the second corpus, its second latent opened."""
    with Page(1200, 1150) as page:
        page.open(study / "features.html")
        page.click("#corpora label:nth-child(2) input")
        page.click("tr.row:nth-child(2) button")
        page.ask("scrollTo(0, 0)")
        page.picture(picture)


def report(study: Path, picture: Path) -> None:
    """The report with the figure of the paper's claims open."""
    with Page(1200, 720) as page:
        page.open(study / "report.html")
        category = "[...document.querySelectorAll('a')].find(a => a.textContent == 'Findings')"
        wait_for(page, f"{category} !== undefined")
        page.ask(f"{category}.click()")
        row = "[...document.querySelectorAll('tr')].find(r => /claims.*figure/.test(r.textContent))"
        wait_for(page, f"{row} !== undefined")
        page.ask(f"{row}.querySelector('a').click()")
        wait_for(page, "[...document.images].some(i => i.naturalWidth > 500 && i.complete)")
        page.picture(picture)


if __name__ == "__main__":
    study = Path(sys.argv[1])
    pictures = study / "pictures"
    pictures.mkdir(exist_ok=True)
    features(study, pictures / "features.png")
    report(study, pictures / "report.png")
    sys.stdout.write(f"pictures {pictures}/\n")
