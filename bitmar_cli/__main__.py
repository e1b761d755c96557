"""`python -m bitmar_cli` is `bitmar`."""

from bitmar_cli.main import main

if __name__ == "__main__":
    main()
