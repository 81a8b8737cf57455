"""`python -m petl_modules`, which is `petl`."""

from petl_modules.commands import main

if __name__ == "__main__":
    main()
