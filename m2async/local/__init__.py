"""The local endpoint: the batch part of the service's API on loopback, with a quota, and faults on demand.

Its names are in `__init__.pyi`, and imported when they are used: the server brings aiohttp and botocore with it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
