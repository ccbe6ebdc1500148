"""The engine: what every method shares, for one process or many workers, with or without Ray.

`loop.train` is the run from top to bottom; `learner.Learner` is one update; `labelling.Labeller` turns features into
pseudo-labels; `evaluation.evaluate` measures. Workers differ only in the `Ranks` and the services they are handed.
"""
