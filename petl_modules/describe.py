"""`python -m petl_modules.describe`: see `petl_modules.train.describe`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.train.describe")
