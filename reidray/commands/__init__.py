"""One module a subcommand of `reidray`."""
