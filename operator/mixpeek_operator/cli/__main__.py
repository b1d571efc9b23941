"""`python -m mixpeek_operator.cli` is `mixpeekctl`."""

from mixpeek_operator.cli.app import main

main()
