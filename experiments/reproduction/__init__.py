"""One report of all studies, beside what the papers print."""
