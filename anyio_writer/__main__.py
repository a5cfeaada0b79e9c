"""``python -m anyio_writer`` is the command ``anyio-writer``."""

import sys

from .cli import main

sys.exit(main())
