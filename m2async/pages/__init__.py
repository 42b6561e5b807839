"""What every page shares: its look, its charts, and how values are put into words.

`Pages(package).render` makes a whole page of a template that extends `base.html`; `charts` draws, `texts` words.
"""

from m2async.pages.marks import STATES
from m2async.pages.page import Pages, policy
from m2async.pages.texts import NOTHING, moment, number, percent, plural, seconds, visible

__all__ = ["NOTHING", "STATES", "Pages", "moment", "number", "percent", "plural", "policy", "seconds", "visible"]
