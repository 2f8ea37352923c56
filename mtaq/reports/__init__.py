"""Reports: notices about our mail that others send, recognised and read, and those that we write."""

from mtaq.reports.recognise import may_be_report, recognise
from mtaq.reports.report import Report, ReportType

__all__ = ["Report", "ReportType", "may_be_report", "recognise"]
