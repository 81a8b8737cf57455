"""`python -m petl_modules.search`, which is `petl search`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("search")
