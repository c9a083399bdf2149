"""The page about a reconstruction: one HTML file that needs no network.

`data` is what a caller fills in, `facts` its numbers and plain words, `pictures` the
drawings, `scene` what the browser draws itself, and `page` puts them together.
"""

from __future__ import annotations

from sfm_features.report.data import ReportData
from sfm_features.report.page import write_report

__all__ = ["ReportData", "write_report"]
