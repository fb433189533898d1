"""`python -m functions` is `pulseline`."""

from functions.cli import main

main()
