"""Every experiment of the HOAG paper and of those that it builds on, from the data up."""
