"""The engine over real files: its rows are those that the app sees."""

import pytest


@pytest.fixture
def store(app):
    return app.store
