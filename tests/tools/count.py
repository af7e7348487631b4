#!/usr/bin/env python3
"""Counts the tests in JUnit files: prints "PASSED FAILED SKIPPED" in total, and each skipped test with its reason on stderr.

ctest counts a cmocka program as one test, but it contains many, so the summary lines in its output are counted. A program
that fails without naming a test (a crash, a timeout) counts as one failure."""

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
