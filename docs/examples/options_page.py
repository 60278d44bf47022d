"""Write the table of training options into docs/training.md, from the options themselves.

    python docs/examples/options_page.py

A test compares the page with the table.
"""

from __future__ import annotations

import re
from pathlib import Path

from salibi_cli.options import markdown_table
from salibi_model.training.config import TrainingConfig

PAGE = Path(__file__).parents[1] / "training.md"


def with_table(page: str) -> str:
    """Replace the table between the marks of the page."""
    marks = r"(<!-- options -->\n).*(<!-- end of options -->)"
    return re.sub(
        marks, lambda m: f"{m[1]}{markdown_table(TrainingConfig)}{m[2]}", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
