"""The subcommands of `reidray`, a file each."""
