"""Everything that commands show: progress, tables, plots and pages."""
