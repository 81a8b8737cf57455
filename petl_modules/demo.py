"""`python -m petl_modules.demo`: see `petl_modules.use.demo`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.use.demo")
