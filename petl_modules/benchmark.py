"""`python -m petl_modules.benchmark`: see `petl_modules.grid.benchmark`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.grid.benchmark")
