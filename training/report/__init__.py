"""The report of a job: exports/report.html, one file that any browser shows without a network connection."""
