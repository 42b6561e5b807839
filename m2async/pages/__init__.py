"""What every page shares: its look, its frame and its charts.

`Pages(package).render` makes a whole page of a template that extends `base.html`; `charts` draws.
"""

from m2async.pages.marks import STATES
from m2async.pages.page import Pages, policy

__all__ = ["STATES", "Pages", "policy"]
