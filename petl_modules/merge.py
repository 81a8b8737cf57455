"""`python -m petl_modules.merge`, which is `petl merge`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("merge")
