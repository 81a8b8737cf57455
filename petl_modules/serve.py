"""`python -m petl_modules.serve`, which is `petl serve`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("serve")
