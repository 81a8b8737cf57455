"""`python -m petl_modules.report`: see `petl_modules.grid.report`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.grid.report")
