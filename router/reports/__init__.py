"""Reports: tables, the HTML page, LaTeX, figures, and the summary and browser of a log."""
