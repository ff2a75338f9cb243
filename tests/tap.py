#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sums what one test program said in TAP, and judges how it ended.

usage: tap.py --name NAME [--status N] [--limit SECONDS] LOG

Prints one line "PASSED FAILED SKIPPED" (three numbers), then one line "fail: WHAT" or
"skip: NAME: REASON" for each test that did not pass. The program's exit status is evidence too:

  status 124 or 137   it ran out of its time (timeout's answer): one failure
  status 77           it could not run here: one skip, for the reason of its last line "SKIP: REASON"
  other than 0        a failure of its own, unless a "not ok" already accounts for it
  no test at all      one test, passed or failed by the exit status alone
  fewer than planned  each missing test is a failure: a crash never counts as fewer tests
"""
import argparse
import re
import sys

RESULT = re.compile(r"^(not )?ok\b(?:\s+\d+)?(?:\s*-)?\s*(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#\s*skip\b\S*\s*(.*))?$", re.IGNORECASE)
DIRECTIVE = re.compile(r"\s#\s*(skip|todo)\b\S*\s*(.*)$", re.IGNORECASE)
TIMES_OUT = (124, 137)
CANNOT_RUN = 77
REASON = re.compile(r"^SKIP:\s*(.+)$")


def read_tap(lines):
    """Returns (passed names, failed names, [(name, reason)], planned or None, bail-out or None)."""
    passed, failed, skipped = [], [], []
    planned = bail = None
    for line in lines:
        line = line.rstrip("\n")
        plan = PLAN.match(line)
        if plan:
            planned = int(plan.group(1))
            if planned == 0:
                skipped.append(("all", plan.group(2) or "no reason given"))
            continue
        if line.startswith("Bail out!"):
            bail = line[len("Bail out!"):].strip() or "no reason given"
            continue
        result = RESULT.match(line)
        if not result:
            continue
        name = result.group(2)
        directive = DIRECTIVE.search(" " + name)
        if directive:
            name = (" " + name)[:directive.start()].strip()
        kind = directive.group(1).lower() if directive else ""
        if kind == "skip":
            skipped.append((name, directive.group(2).strip() or "no reason given"))
        elif result.group(1):
            failed.append(name)
        else:
            passed.append(name)
    return passed, failed, skipped, planned, bail


def judge(name, status, limit, lines):
    lines = list(lines)
    if status == CANNOT_RUN:
        reasons = [found.group(1) for found in map(REASON.match, lines) if found]
        return 0, [], [f"{name}: {reasons[-1] if reasons else 'no reason given'}"]
    passed, failed, skipped, planned, bail = read_tap(lines)
    failures = [f"{name}: {what}" for what in failed]
    skips = [f"{name}: {what}: {why}" for what, why in skipped]
    done = len(passed) + len(failed) + (len(skipped) if planned != 0 else 0)
    if bail is not None:
        failures.append(f"{name}: bailed out: {bail}")
    if planned and done < planned:
        failures += [f"{name}: planned {planned} tests, only {done} reported"] * (planned - done)
    if status in TIMES_OUT:
        failures.append(f"{name}: did not end within {limit} s")
    elif status != 0 and not failures:
        failures.append(f"{name}: exit status {status}")
    ok = len(passed)
    if done == 0 and not failures and not skips:
        ok = 1
    return ok, failures, skips


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--limit", default="its")
    parser.add_argument("log")
    args = parser.parse_args()
    with open(args.log, encoding="utf-8", errors="replace") as log:
        ok, failures, skips = judge(args.name, args.status, args.limit, log)
    print(ok, len(failures), len(skips))
    for failure in failures:
        print("fail:", failure)
    for skip in skips:
        print("skip:", skip)


if __name__ == "__main__":
    sys.exit(main())
