"""Pages about a reconstruction and a localization: HTML that needs no network.

`data` and `queries` are what a caller fills in, `facts` numbers and plain words,
`pictures` and `evidence` the drawings, `scene` what the browser draws itself; `page`
and `localization` put them together, and `rendering` is what both need for that.
"""

from __future__ import annotations

from sfm_features.report.data import ReportData
from sfm_features.report.localization import write_localization_report
from sfm_features.report.page import write_report
from sfm_features.report.queries import LocalizationData, QueryMatches, QueryResult

__all__ = [
    "LocalizationData",
    "QueryMatches",
    "QueryResult",
    "ReportData",
    "write_localization_report",
    "write_report",
]
