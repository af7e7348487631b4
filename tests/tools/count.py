#!/usr/bin/env python3
"""Counts tests in JUnit files: prints "PASSED FAILED SKIPPED" over all files named, and tells which were skipped and why on stderr.

A cmocka program is one test to ctest and many to us: its own summary lines are counted. A program that fails
without saying which test (it crashed, it took too long) counts as one failure more."""

import re
import sys
import xml.etree.ElementTree as ElementTree

SUMMARY = re.compile(r"^\[\s*(PASSED|FAILED|SKIPPED)\s*\] (?:[^\n]*: )?(\d+) test\(s\)", re.MULTILINE)


def count_case(case):
    failed = any(case.find(kind) is not None for kind in ("failure", "error")) or case.get("status") == "fail"
    skipped = case.find("skipped") is not None
    counts = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    for kind, number in SUMMARY.findall(case.findtext("system-out") or ""):
        counts[kind] += int(number)
    if failed and counts["FAILED"] == 0:
        counts["FAILED"] = 1
    elif not any(counts.values()):
        counts["SKIPPED" if skipped else "PASSED"] = 1
    return counts


def main(paths):
    total = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    for path in paths:
        for case in ElementTree.parse(path).iter("testcase"):
            counts = count_case(case)
            for kind, number in counts.items():
                total[kind] += number
            if counts["SKIPPED"]:
                reason = case.find("skipped").get("message") if case.find("skipped") is not None else "see its output"
                print(f"SKIPPED: {case.get('classname')}.{case.get('name')}: {reason}", file=sys.stderr)
    print(total["PASSED"], total["FAILED"], total["SKIPPED"])


if __name__ == "__main__":
    main(sys.argv[1:])
