"""What a handler leaves behind in its thread does not reach the items that come after it."""

import pytest

from jobd import Fail, Skip

SECONDS = 20


def test_a_transaction_that_a_handler_left_open_is_rolled_back_and_named(app):
    app.database.execute_sql("create table mine (x)")

    @app.task
    def leaves(value, ctx):
        if value == "first":
            app.database.execute_sql("begin immediate")
            app.database.execute_sql("insert into mine values (1)")
            raise ValueError(value)
        ctx.save_result(value)

    with app.daemon(workers=1):
        job = leaves.submit(["first", "second"]).wait(SECONDS)
    assert [item.status for item in job.items()] == ["failed", "completed"]
    assert "left a transaction open" in job.output("first").text
    assert app.database.execute_sql("select count(*) from mine").fetchone() == (0,)


@pytest.mark.parametrize(("raised", "status"), [(Skip, "skipped"), (Skip(), "skipped"), (Fail, "failed")])
def test_a_control_exception_needs_no_reason(app, raised, status):
    def leaves(value):
        raise raised

    task = app.task(leaves)
    with app.daemon(workers=1):
        job = task.submit(["a"]).wait(SECONDS)
    assert [item.status for item in job.items()] == [status]
    assert "TypeError" not in str(job.items()[0].error)
