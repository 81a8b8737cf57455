"""`python -m petl_modules.peft_format`, which is `petl peft`."""

from petl_modules.commands import run

if __name__ == "__main__":
    run("peft")
