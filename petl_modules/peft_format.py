"""`python -m petl_modules.peft_format`: see `petl_modules.use.peft_format`."""

from petl_modules.console import command

if __name__ == "__main__":
    command("petl_modules.use.peft_format")
