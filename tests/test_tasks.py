"""Tasks: a function with its policy, checked when it is registered."""

from __future__ import annotations

import functools
import re

import pytest

from jobd import Jobd, UsageError
from jobd.policy import Policy, PolicyOptions, tolerance
from jobd.tasks import SubmitOptions, Task

BUILT_IN = "shell"
NOT_MEANT = [
    ("retries", -1, "not a whole number from 0 up: -1"),
    ("retries", True, "not a whole number"),
    ("retry_on", 1, "retry_on: not an exception's class: 1"),
    ("retry_on", (OSError, "x"), "retry_on: not an exception's class: 'x'"),
    ("backoff", 0, "not a duration: 0"),
    ("concurrency", 0, "not a whole number"),
    ("rate", 10, "not a rate: 10"),
    ("rate", "0/s", "not a rate: '0/s'"),
    ("rate", "10", "not a rate: '10'"),
    ("rate", "10/", "not a rate: '10/'"),
    ("isolation", 1, "isolation: not 1"),
    ("isolation", "asyncio", "isolation: not 'asyncio'"),
    ("recycle_after", 5, "recycle_after and recycle_mb are for processes"),
    ("recycle_mb", 5, "recycle_after and recycle_mb are for processes"),
]


@pytest.fixture
def app(tmp_path):
    return Jobd(tmp_path / "jobs.db")


def double(value):
    """Double it."""
    return value * 2


def test_a_task_called_is_the_plain_function(app):
    task = app.task(double)
    assert task(21) == 42
    assert isinstance(task, Task)
    assert (task.__name__, task.__doc__, task.__wrapped__) == ("double", "Double it.", double)


def test_the_decorator_works_with_and_without_parentheses(app):
    @app.task
    def one(value):
        return value

    @app.task()
    def two(value):
        return value

    @app.task(tolerance="5%", stall_after="10m", max_interruptions=2)
    def three(value):
        return value

    assert list(app.tasks) == [BUILT_IN, "one", "two", "three"]
    assert one.policy == Policy("one", tolerance="0", stall_after=None, max_interruptions=5)
    assert three.policy == Policy("three", tolerance="5%", stall_after=600, max_interruptions=2)


def test_a_task_can_have_another_name_than_its_function(app):
    task = app.task(double, name="twice")
    assert (task.name, app.tasks["twice"]) == ("twice", task)


def test_registering_opens_nothing(app, tmp_path):
    app.task(double)
    assert list(tmp_path.iterdir()) == []


def test_a_second_task_of_one_name_is_refused(app):
    first = app.task(double)
    with pytest.raises(UsageError, match="there is a task double already"):
        app.task(double)
    assert app.tasks["double"] is first


@pytest.mark.parametrize(("keyword", "value", "said"), NOT_MEANT)
def test_how_items_run_is_refused_where_it_cannot_be_meant(app, keyword, value, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        app.task(**{keyword: value})(double)
    assert list(app.tasks) == [BUILT_IN]


def test_a_misspelt_keyword_is_told_what_it_may_mean(app):
    with pytest.raises(UsageError) as caught:
        app.task(tolerence=1)(double)
    assert caught.value.hint == "did you mean tolerance?"


def test_the_keywords_are_those_of_the_policy():
    assert list(PolicyOptions.__annotations__) == list(Policy.__dataclass_fields__)
    assert "params" in SubmitOptions.__annotations__


async def awaited(value):
    return value


def generated(value):
    yield value


async def both(value):
    yield value


class Callable:
    def __call__(self, value):
        return value


def nothing():
    return None


def two_at_once(left, right):
    return left + right


def keyword_only(*, value):
    return value


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (both, "generator"),
        (generated, "generator"),
        (nothing, "cannot be called with a payload"),
        (two_at_once, "cannot be called with a payload"),
        (keyword_only, "cannot be called with a payload"),
        (Callable, "not a function"),
        (42, "not a function"),
    ],
)
def test_what_could_never_run_an_item_is_refused_when_it_is_registered(app, function, reason):
    with pytest.raises(UsageError, match=reason):
        app.task(function, name="it")
    assert list(app.tasks) == [BUILT_IN]


def test_an_async_function_runs_items_and_cannot_be_asked_about_them(app):
    task = app.task(awaited)
    assert (task.policy.isolation, task.policy.concurrency) == ("asyncio", 100)
    with pytest.raises(UsageError, match="its verify is an async function, where a plain one is called"):
        task.verify(awaited)


@pytest.mark.parametrize("function", [lambda value: value, Callable(), functools.partial(double)])
def test_what_has_no_name_of_its_own_needs_one(app, function):
    with pytest.raises(UsageError, match="has no name of its own") as caught:
        app.task(function)
    assert "name=" in caught.value.hint
    assert app.task(function, name="it")("x") in {"x", "xx"}


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 5000, 7])
def test_a_name_that_cannot_be_stored_is_refused(app, name):
    with pytest.raises(UsageError):
        app.task(double, name=name)


def with_context(value, ctx):
    return ctx


def with_optional_context(value, *, ctx=None):
    return ctx


def with_more(value, times=2):
    return value * times


@pytest.mark.parametrize(
    ("function", "wants"),
    [
        (with_context, True),
        (with_optional_context, True),
        (with_more, False),
        (double, False),
        (len, False),
        (max, False),
    ],
)
def test_the_context_is_for_a_function_with_a_parameter_of_that_name(app, function, wants):
    assert app.task(function).wants_context is wants


@pytest.mark.parametrize(
    ("value", "stored"), [(0, "0"), (3, "3"), ("3", "3"), ("5%", "5%"), ("2.5%", "2.5%"), ("100%", "100%")]
)
def test_a_tolerance_is_a_count_or_a_percentage(value, stored):
    assert tolerance(value) == stored


@pytest.mark.parametrize("value", [-1, 0.05, "5 %", "101%", "-1%", "%", "", "many", True, None, "٣", [1], 10**15])
def test_what_is_no_tolerance_is_refused(app, value):
    with pytest.raises(UsageError, match="not a tolerance"):
        tolerance(value)
    with pytest.raises(UsageError):
        app.task(double, tolerance=value)


@pytest.mark.parametrize("value", [-1, 1.5, True, False, "x", None])
def test_interruptions_are_counted_from_zero(app, value):
    with pytest.raises(UsageError):
        app.task(double, max_interruptions=value)
    assert app.task(double, max_interruptions=0).policy.max_interruptions == 0


def test_the_mapping_of_tasks_follows_and_cannot_be_written(app):
    tasks = app.tasks
    task = app.task(double)
    assert tasks["double"] is task
    with pytest.raises(TypeError):
        tasks["other"] = task


# -- unique -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "period"),
    [
        ({}, None),
        ({"unique": "day"}, "2026-11-21"),
        ({"unique": "day", "zone": "UTC"}, "2026-11-21"),
        ({"unique": "day", "zone": "Europe/Berlin"}, "2026-11-22"),
    ],
)
def test_a_unique_task_claims_the_day_of_its_zone(app, options, period):
    task = app.task(double, **options)
    assert task.policy.period(1_795_305_600_000 - 1_800_000) == period


@pytest.mark.parametrize("unit", ["hour", "DAY", "", 1, True, ["day"]])
def test_another_unit_than_the_day_is_refused_in_one_line(app, unit):
    with pytest.raises(UsageError, match="unique: not") as caught:
        app.task(double, unique=unit)
    assert "\n" not in str(caught.value)
    assert list(app.tasks) == [BUILT_IN]


@pytest.mark.parametrize("zone", ["Europe/Belrin", "+01:00", "", "../UTC", "Europe", "a\0b", "\ud800", 1, "x" * 9_000])
def test_a_zone_that_does_not_exist_is_refused_where_the_task_is_registered(app, zone):
    with pytest.raises(UsageError, match="time zone") as caught:
        app.task(double, unique="day", zone=zone)
    assert str(caught.value).isascii()
    assert list(app.tasks) == [BUILT_IN]


def test_a_zone_without_unique_says_what_it_is_for(app):
    with pytest.raises(UsageError, match="goes with unique"):
        app.task(double, zone="UTC")
