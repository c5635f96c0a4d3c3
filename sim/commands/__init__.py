"""The commands of `sim`, a file for each group: parse, call one function, print its result."""
