"""The report: one page of a whole run that opens without a network, made of what the stages leave in reports/."""
