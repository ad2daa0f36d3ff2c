"""The page that tells whether a job was worth its money: exports/report.html, one file, for any browser, offline."""
