"""The page of a run: `report.html` and the folder `report` beside it, opened from disk, without a server.

`write_page` makes it from `RunContents`, which `reidray.launch.run_page` gathers. Thumbnails lie in sheets, and what is
said of single images in files of JavaScript that the page loads as they are needed, since a page that is opened from
disk may not read other files: so a page of 100,000 images opens as fast as one of 1,000, and is a few hundred files.

Names of files come from strangers. Templates escape everything; the script of the page sets text, never markup; a
policy in the page's head forbids scripts that are not the page's own, and every address but files.
"""

from reidray.report.page.compare import ComparedRun, write_comparison
from reidray.report.page.contents import RankedList, RunContents
from reidray.report.page.write import MAPPED, write_page

__all__ = ["MAPPED", "ComparedRun", "RankedList", "RunContents", "write_comparison", "write_page"]
