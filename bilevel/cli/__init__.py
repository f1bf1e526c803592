"""The command line, on click and rich; it uses the face of the package only."""

from __future__ import annotations

import sys

from bilevel._loading import INTERRUPTED


def main() -> None:
    """Run ``bilevel``; without the packages it needs, say what to install."""
    try:
        from ._app import app
    except ImportError as error:
        sys.exit(f'The command line needs {error.name}: run pip install "bilevel[cli]".')
    except KeyboardInterrupt:  # while it loads
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    app()
