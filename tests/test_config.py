"""Settings: one table for keywords, variables, help and docs."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from jobd import config
from jobd.config import SETTINGS, Settings, settings
from jobd.errors import UsageError
from jobd.measures import age, amount, count, days, duration, size

DOCS = Path(__file__).parents[1] / "docs" / "settings.md"


def test_the_docs_are_the_table():
    assert DOCS.read_text(encoding="utf-8") == config.as_markdown()


def test_every_default_reads_back_as_the_default():
    for setting in SETTINGS:
        if setting.name != "workers":
            assert setting.parse(setting.default) == getattr(Settings(), setting.name)


def test_the_table_has_a_row_for_each_field():
    assert [setting.name for setting in SETTINGS] == [field.name for field in fields(Settings)]
    assert all(setting.help.endswith(".") for setting in SETTINGS)


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (3, 3), (4, 4), (64, 4), (None, 1)])
def test_workers_are_as_many_as_processors_but_four_at_most(monkeypatch, cpus, workers):
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert config.default_workers() == workers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5),
        (0.25, 0.25),
        ("90", 90),
        ("1.5", 1.5),
        ("30s", 30),
        (" 5m ", 300),
        ("5 m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("250ms", 0.25),
        ("2d", 172_800),
        ("1w", 604_800),
        (timedelta(minutes=2), 120),
    ],
)
def test_a_duration_is_read_in_seconds(value, seconds):
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "m",
        "5x",
        "5m3",
        "-5s",
        "5mm",
        "5 m x",
        "\N{ARABIC-INDIC DIGIT FIVE}s",
        "1e3",
        "nan",
        0,
        -1,
        float("nan"),
        float("inf"),
        "1" * 400,
        True,
        None,
        [5],
    ],
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(UsageError, match="not a duration"):
        duration(value)


@pytest.mark.parametrize(
    ("value", "amount"),
    [(1, 1), (500_000, 500_000), ("8 MB", 8_000_000), ("8mb", 8_000_000), ("1.5 KiB", 1536), ("2GiB", 2**31), ("7", 7)],
)
def test_a_size_is_read_in_bytes(value, amount):
    assert size(value) == amount


@pytest.mark.parametrize("value", ["", "MB", "8 XB", "-1", 0, "0.1", True, None, "8 MB 3", float("nan"), "9" * 400])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(UsageError, match="not a size"):
        size(value)


@pytest.mark.parametrize("value", [0, -1, 1.0, "x", "", "1.5", True, None, "9" * 5000])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(UsageError, match="not a whole number"):
        count(value)


@pytest.mark.parametrize(("value", "kept"), [("30d", 2_592_000), (60, 60), ("forever", None), (" Forever ", None)])
def test_an_age_is_a_duration_or_for_ever(value, kept):
    assert age(value) == kept


@pytest.mark.parametrize("value", ["", "for ever", 0, -1, None, True])
def test_what_is_no_age_is_refused(value):
    with pytest.raises(UsageError, match="not a duration") as refusal:
        age(value)
    assert refusal.value.hint.endswith("or forever")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(1, 86_400), ("2", 172_800), (0, 0), ("0", 0), (0.5, 43_200), ("36h", 129_600), (timedelta(hours=1), 3_600)],
)
def test_a_bare_number_is_of_days_where_days_are_meant(value, seconds):
    assert days(value) == seconds


@pytest.mark.parametrize("value", ["", "x", -1, "-1", True, None, float("nan"), "1" * 400, 36_600.5, timedelta(-1)])
def test_what_is_no_number_of_days_is_refused(value):
    with pytest.raises(UsageError, match="not an age"):
        days(value)


@pytest.mark.parametrize(("value", "whole"), [(0, 0), ("0", 0), (7, 7), (" 12 ", 12)])
def test_an_amount_may_be_nothing(value, whole):
    assert amount(value) == whole


@pytest.mark.parametrize("value", [-1, 0.0, False, True, "x", "", "1.5", None])
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(UsageError, match="from 0 up"):
        amount(value)


def test_a_keyword_comes_before_a_variable_and_a_variable_before_the_default():
    environment = {"JOBD_DRAIN": "5m", "JOBD_GRACE": "2m"}
    found = settings({"drain": "1m"}, environment)
    assert (found.drain, found.grace, found.heartbeat) == (60, 120, 5)


def test_none_as_a_keyword_is_not_given():
    assert settings({"workers": None}, {"JOBD_WORKERS": "7"}).workers == 7


def test_every_setting_has_a_variable_that_is_read():
    values = {"workers": "3", "durability": "full"}
    for setting in SETTINGS:
        text = values.get(setting.name, "17")
        found = settings({}, {setting.variable: text})
        assert getattr(found, setting.name) == setting.parse(text) != getattr(Settings(), setting.name)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"workerz": 3}, "did you mean workers?"),
        ({"heart_beat": 3}, "did you mean heartbeat?"),
        ({"zzz": 3}, "known are: workers, durability,"),
        ({"retries": 3}, ""),
    ],
)
def test_an_unknown_keyword_is_refused_with_what_may_be_meant(given, hint):
    with pytest.raises(UsageError, match="unknown setting") as caught:
        settings(given, {})
    assert hint in caught.value.hint


def test_an_unknown_variable_is_refused_with_what_may_be_meant():
    with pytest.raises(UsageError, match="unknown variable 'JOBD_WORKER'") as caught:
        settings({}, {"JOBD_WORKER": "3"})
    assert caught.value.hint == "did you mean JOBD_WORKERS?"


@pytest.mark.parametrize("name", ["JOBD_DB", "_JOBD_COMPLETE", "PATH", "jobd_x"])
def test_variables_that_are_no_settings_are_left_alone(name):
    assert settings({}, {name: "x"}) == Settings()


def test_a_bad_value_is_refused_by_the_name_it_came_under():
    with pytest.raises(UsageError, match=r"^drain: not a duration: 'soon'$"):
        settings({"drain": "soon"}, {"JOBD_DRAIN": "5s"})
    with pytest.raises(UsageError, match=r"^JOBD_DRAIN: not a duration: 'soon'$") as caught:
        settings({}, {"JOBD_DRAIN": "soon"})
    assert "30s" in caught.value.hint
    with pytest.raises(UsageError, match=r"^durability: not a durability: 'half'$"):
        settings({"durability": "half"}, {})


def test_settings_do_not_change():
    with pytest.raises(AttributeError):
        Settings().workers = 3


def test_the_database_is_that_of_the_environment():
    assert config.database_path({"JOBD_DB": "/x/jobs.db"}) == "/x/jobs.db"
    assert config.database_path({"JOBD_DB": ""}) is None
    assert config.database_path({}) is None


def test_the_users_database_lies_in_the_data_folder_and_is_not_created(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    found = config.user_database()
    assert found.parts[-2:] == ("jobd", "jobs.db")
    assert tmp_path in found.parents
    assert not found.parent.exists()
