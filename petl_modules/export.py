"""`python -m petl_modules.export`: see `petl_modules.use.export`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.use.export")
