"""`python -m infra.cli`: the command line where no `swath` is on the path."""

from infra.cli import main

main()
