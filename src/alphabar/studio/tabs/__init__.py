"""The tabs of the page, one class for each."""
