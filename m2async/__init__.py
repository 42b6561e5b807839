"""Start AWS Mainframe Modernization batch jobs in bulk, from asyncio.

The public face is in `__init__.pyi`, for type checkers and at run time: each name is imported when it is first used,
so that `import m2async` costs no time for what a program does not use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
