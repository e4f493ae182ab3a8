"""The report of a pass: the fields of the contract, and back from the text that its row keeps."""

from __future__ import annotations

from jobd.maintenance.report import Change, Report

REPORT = Report(
    "recover",
    check_only=True,
    changes=[
        Change(7, 3, "ключ", "running", "queued", "its daemon is gone", 1_795_305_600_000, 2),
        Change(8, None, None, "queued", "removed", "its submitter is gone"),
    ],
    counts={"queued": 1, "removed": 1},
)


def test_json_has_the_fields_of_the_contract_in_its_order():
    found = REPORT.json()
    assert list(found) == ["pass", "check_only", "changes", "counts"]
    assert [list(change) for change in found["changes"]] == [
        ["job_id", "item_id", "key", "from_status", "to_status", "evidence"]
    ] * 2
    assert (found["pass"], found["check_only"], found["counts"]) == ("recover", True, {"queued": 1, "removed": 1})


def test_a_report_is_read_back_whole():
    assert Report.loads(REPORT.dumps()) == REPORT


def test_a_pass_that_did_nothing_has_an_empty_report():
    assert Report("recover", check_only=False).json() == {
        "pass": "recover", "check_only": False, "changes": [], "counts": {},
    }  # fmt: skip
