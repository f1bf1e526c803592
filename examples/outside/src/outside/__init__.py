"""What may be added to bilevel from outside, one file each (docs/extending.md)."""
