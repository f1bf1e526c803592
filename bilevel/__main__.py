"""``python -m bilevel`` is ``bilevel``."""

from .cli import main

if __name__ == "__main__":
    main()
