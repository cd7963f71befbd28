"""Several training runs side by side: the pair of `make train`, and the table over seeds of `make compare`."""
