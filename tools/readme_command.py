"""Print a command of the README: the shell block after ``<!-- command: NAME -->``.

The continuous integration runs what it prints, so that the README and the checks cannot drift.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def readme_command(name: str, text: str) -> str:
    """Return the shell block that is marked with a name.

    Raises
    ------
    LookupError
        If there is no such block, or more than one.
    """
    found = re.findall(rf"<!-- command: {re.escape(name)} -->\s*```sh\n(.*?)```", text, re.DOTALL)
    if len(found) != 1:
        raise LookupError(f"{len(found)} blocks are marked {name!r}; expected 1.")
    return str(found[0]).strip()


if __name__ == "__main__":
    print(readme_command(sys.argv[1], README.read_text(encoding="utf-8")))
