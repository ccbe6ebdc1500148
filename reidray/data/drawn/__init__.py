"""Drawn pedestrians: a synthetic data set with identities, cameras and part masks.

A person is an identity (body, gait, clothes, hair, bags). A picture adds view, camera, scene, what stands in front, and
how the box was cut. Every picture depends on the settings and on its own key (split, person, camera, picture) alone, so
any number of processes draws the same bytes. Masks of the body's parts and the persons' attributes are written with it.
`python -m reidray.data.drawn --sheet OUT.png` draws a sheet of examples.
"""

from .canvas import PART_NAMES as PART_NAMES
from .identity import GROUPS as GROUPS
from .identity import Identity as Identity
from .identity import attributes as attributes
from .picture import Picture as Picture
from .picture import draw_picture as draw_picture
from .population import Population as Population
from .population import population as population
from .settings import SPLITS as SPLITS
from .settings import DrawnSettings as DrawnSettings
from .writer import write_market1501 as write_market1501
from .writer import write_tracklets as write_tracklets
