"""``python docs/gallery.py RUNS`` takes the pictures of the gallery from runs of all demos: RUNS/ddpm/samples.png, …

They are made smaller for the page: pictures get a palette; animations half the size and every other frame.
"""

import re
import sys
from pathlib import Path

from PIL import Image, ImageSequence

HERE = Path(__file__).parent
LIMIT = 300_000  # bytes in a file


def wanted(page: str) -> list[str]:
    """What the page shows, as ``demo/picture.png``."""
    return re.findall(r"\(images/gallery/([\w/]+\.(?:png|gif))\)", page)


def smaller(picture: Path, out: Path) -> None:
    """A picture with at most 256 colours."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


def smaller_film(film: Path, out: Path) -> None:
    """An animation of half the size, of every other frame; the first and the last stay."""
    with Image.open(film) as image:
        frames, pauses = [], []
        for frame in ImageSequence.Iterator(image):
            half = (frame.width // 2, frame.height // 2)
            frames.append(frame.convert("RGB").resize(half, Image.Resampling.BOX).quantize(64))
            pauses.append(frame.info["duration"])
    keep = sorted({*range(0, len(frames), 2), len(frames) - 1})
    frames[0].save(
        out, save_all=True, append_images=[frames[k] for k in keep[1:]], duration=[2 * pauses[k] for k in keep[:-1]]
        + [pauses[-1]], loop=0, optimize=True,
    )  # fmt: skip


def main(runs: Path) -> None:
    """Write docs/images/gallery anew."""
    for name in wanted((HERE / "gallery.md").read_text("utf-8")):
        out = HERE / "images/gallery" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        (smaller_film if out.suffix == ".gif" else smaller)(runs / name, out)
        print(f"{name}: {out.stat().st_size:,} bytes" + ("" if out.stat().st_size < LIMIT else ", too large"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
