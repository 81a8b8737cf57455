"""`python -m petl_modules.describe`, which is `petl describe`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("describe")
