"""`python -m petl_modules.embed`, which is `petl embed`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("embed")
