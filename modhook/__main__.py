"""`python -m modhook`, the same as the command `modhook`."""

from modhook.cli import main

if __name__ == "__main__":
    main()
