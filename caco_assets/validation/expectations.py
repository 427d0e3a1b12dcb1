"""The kinds of expectation that the suites use; each has a name, a description and a severity."""

from __future__ import annotations

from typing import Any, Literal

from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_match_regex import ExpectColumnValuesToMatchRegex
from great_expectations.expectations.core.expect_compound_columns_to_be_unique import ExpectCompoundColumnsToBeUnique
from great_expectations.expectations.core.expect_table_row_count_to_be_between import ExpectTableRowCountToBeBetween
from great_expectations.expectations.core.expect_table_row_count_to_equal import ExpectTableRowCountToEqual
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

Severity = Literal["blocking", "warning"]

_LEVEL = {"blocking": FailureSeverity.CRITICAL, "warning": FailureSeverity.WARNING}


def between(
    name: str, column: str, low: float | None, high: float | None, says: str, severity: Severity = "blocking"
) -> Expectation:
    """Every value lies within two bounds, both allowed; `None` is no bound."""
    return _check(name, severity, says, ExpectColumnValuesToBeBetween, column=column, min_value=low, max_value=high)


def among(name: str, column: str, allowed: tuple[Any, ...], says: str, severity: Severity = "blocking") -> Expectation:
    """Every value is one of those allowed."""
    return _check(name, severity, says, ExpectColumnValuesToBeInSet, column=column, value_set=list(allowed))


def empty(name: str, column: str, says: str, severity: Severity = "blocking") -> Expectation:
    """A column that lists a row's problems is empty."""
    return among(name, column, ("",), says, severity)


def true(name: str, column: str, says: str, severity: Severity = "blocking") -> Expectation:
    """Every value is true."""
    return among(name, column, (True,), says, severity)


def regex(name: str, column: str, pattern: str, says: str, severity: Severity = "blocking") -> Expectation:
    """Every value matches a regular expression."""
    return _check(name, severity, says, ExpectColumnValuesToMatchRegex, column=column, regex=pattern)


def unique(name: str, columns: tuple[str, ...], says: str, severity: Severity = "blocking") -> Expectation:
    """No two rows agree in all of the columns."""
    if len(columns) == 1:
        return _check(name, severity, says, ExpectColumnValuesToBeUnique, column=columns[0])
    return _check(name, severity, says, ExpectCompoundColumnsToBeUnique, column_list=list(columns))


def rows(name: str, low: int, says: str, severity: Severity = "blocking") -> Expectation:
    """There is a minimum number of rows."""
    return _check(name, severity, says, ExpectTableRowCountToBeBetween, min_value=low)


def count(name: str, number: int, says: str, severity: Severity = "warning") -> Expectation:
    """There is an exact number of rows."""
    return _check(name, severity, says, ExpectTableRowCountToEqual, value=number)


def _check(name: str, severity: Severity, says: str, kind: type[Expectation], **arguments: Any) -> Expectation:
    return kind(description=says, meta={"check": name, "severity": severity}, severity=_LEVEL[severity], **arguments)
