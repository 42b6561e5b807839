"""Pages: the one look that the report, the dashboard and the probe's page have.

`Pages(package).render` makes a whole page of a template that extends `base.html`; `charts` draws, `texts` words.
"""

from m2async.pages.page import Pages, policy

__all__ = ["Pages", "policy"]
