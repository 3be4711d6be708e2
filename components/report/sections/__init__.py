"""The sections of the report, by what they are about; each is left out, or says why, where there is nothing to show."""
