"""From an interval to a verdict, a chapter's record, tables and figures."""
