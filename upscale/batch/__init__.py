"""Many pictures: what becomes of each, planned before any work, and done so that one's failure is its alone."""
