"""``python -m bigain``."""

from bigain.cli import main

if __name__ == "__main__":
    main()
