"""`python -m petl_modules.merge`: see `petl_modules.use.merge`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.use.merge")
