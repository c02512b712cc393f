"""What all tests share: helpers that stand beside a test are imported by their names."""

import sys
from pathlib import Path

for folder in ("server", "servers"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
