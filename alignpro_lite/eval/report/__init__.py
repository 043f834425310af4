"""The report of an evaluation: tables, Markdown to paste, figures, and one HTML page."""
