"""`python -m petl_modules.search`: see `petl_modules.grid.search`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.grid.search")
