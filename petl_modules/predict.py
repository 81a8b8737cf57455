"""`python -m petl_modules.predict`: see `petl_modules.use.predict`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.use.predict")
