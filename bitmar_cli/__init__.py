"""BitMar's command line. `main.py` is the entry point; each command is one file in `commands/`."""
