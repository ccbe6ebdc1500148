"""Tuning: a search for settings, from its file to its results.

`search_file` reads what is searched, `checks` checks it with the settings, `proposals` decides which trial comes next,
`trial` runs one, `ledger` records what became of each, `results` writes and draws what was found, and `run_search` puts
them together. Ray Tune, which places and stops the trials, is in `reidray.actors.tune`.
"""
