"""Two studies with the numbers that came out: `python -m studies.float16` and `python -m studies.batch_size`."""
