"""`make reproduce`: a trial run again in a clean place, and held against its record."""
