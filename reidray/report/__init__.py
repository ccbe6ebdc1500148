"""What a run shows: the console and its log, loggers, timelines, curves, and pictures of masks and ranked lists.

Events (plain dicts) go in at `Console.handle`; everything else is drawn afterwards from the run folder. Nothing here
is needed to train, and nothing here feeds back into training.
"""

from reidray.report.console import Console
from reidray.report.loggers import Logger, check_loggers
from reidray.report.pictures import draw_masks, draw_ranked_lists

__all__ = ["Console", "Logger", "check_loggers", "draw_masks", "draw_ranked_lists"]
