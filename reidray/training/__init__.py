"""The engine: it executes what a method decides, in one process or on many workers, with or without Ray.

`loop.train` is the whole run. `learner.Learner` is one update. `labeller.Labeller` labels, alone through
`whole_search.WholeSearch` or with others through `block_search.BlockSearch`. `evaluation.evaluate` measures. A worker
gets its `Ranks`, the bank and the labellers in a `context.Context`; nothing else differs between workers.
"""
