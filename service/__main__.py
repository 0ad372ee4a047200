"""`python -m service`, the same as `millpond`."""

from service.cli import main

main()
