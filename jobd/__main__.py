"""``python -m jobd`` is the command ``jobd``."""

from __future__ import annotations

from jobd.cli import main

if __name__ == "__main__":
    main()
