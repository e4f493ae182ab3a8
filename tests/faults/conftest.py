"""What kills and files that were cut off share."""

import pytest
from kit.warm import Warm


@pytest.fixture(scope="session")
def warm():
    """The process in whose children lives begin and end."""
    process = Warm()
    yield process
    process.close()
