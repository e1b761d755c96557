"""One file for each screen, named by what is seen."""
