"""HTML pages: their assets, how they are written, and the format of texts and scores in them."""

from importlib.resources import files
from pathlib import Path

from trak._utils.typing import Array


def read_asset(name: str) -> str:
    """The content of a file in `trak/visualization/page`."""
    return (files("trak.visualization") / "page" / name).read_text(encoding="utf-8")


def write_page(path: Path, source: str) -> Path:
    """Write a page, and create its folder. Characters without UTF-8, such as a lone surrogate, are replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = source.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    path.write_text(source, encoding="utf-8", newline="\n")
    return path


def truncate(text: str, characters: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def normalize_scores(scores: Array) -> list[float]:
    """Scores of tokens divided by the largest absolute value, from -1 to 1."""
    return (scores / (abs(scores).max() or 1)).round(3).tolist()


def format_score(score: float) -> str:
    """A score with three digits and its sign."""
    return f"{score:+#.3g}".rstrip(".").replace("-", "−")
