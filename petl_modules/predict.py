"""`python -m petl_modules.predict`, which is `petl predict`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("predict")
