"""`python -m petl_modules.speed`: see `petl_modules.grid.speed`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.grid.speed")
